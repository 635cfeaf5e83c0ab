"""rabbitmq: RabbitMQ 3.10 and newer, over AMQP 0-9-1. At least once.

broker.py         connecting, publishing, subscribing
link.py           a connection that is made again for ever
publisher.py      publishing with confirms, many at a time
confirming.py     the channel that it is done on
subscription.py   one queue's deliveries, and how they are settled
consumption.py    consuming a queue, begun anew whenever it ends
taking.py         the channel that deliveries come on
delays.py         events for later
topology.py       what is declared at the server
names.py          how queues and bindings are called
envelope.py       from what arrived to a delivery
content.py        how an event's headers look
connection.py     one socket, from the greeting to the farewell
channel.py        one of its channels
wire.py           frames as bytes
config.py         the URL's options
"""

from .broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
