"""nats and jetstream: NATS core, at most once, and JetStream, at least once, through nats-py.

broker.py         NATS core: connecting, publishing, subscribing
jetstream.py      JetStream: publishing with the server's confirmation
streams.py        the streams and consumers that topics and groups need
pull.py           one member of a group
wire.py           the hot path past the driver
subscription.py   a bounded bridge from the driver's callback to batches
envelope.py       how a message looks on the wire: native headers, or go-micro's JSON
config.py         the URL's options
"""

from .broker import NatsBroker
from .jetstream import JetStreamBroker

__all__ = ["JetStreamBroker", "NatsBroker"]
