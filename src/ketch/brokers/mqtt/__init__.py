"""mqtt: MQTT 5 at QoS 1 (at least once) or QoS 0 (at most once), over a small client of our own. See decision 7.

packets.py        the protocol's packets, and those of a client as bytes; no IO
decoder.py        those of a server, read; no IO
envelope.py       an event as topic, properties and payload
config.py         the URL's options
connection.py     packets over a socket, in batches
link.py           a connection that is made again
publisher.py      events on their way out, until they are confirmed
presence.py       which sessions of a group somebody looks after
session.py        one subscribed session of the server's
subscription.py   what comes from a subscription's sessions, and what became of it
broker.py         connecting, publishing, subscribing
"""

from .broker import MqttBroker

__all__ = ["MqttBroker"]
