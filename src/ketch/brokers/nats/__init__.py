"""nats: NATS core, through nats-py. At most once; at least once is JetStream's.

broker.py         connecting, publishing, subscribing
subscription.py   a bounded bridge from the driver's callback to batches
envelope.py       how a message looks on the wire: native headers, or go-micro's JSON
config.py         the URL's options
"""

from .broker import NatsBroker

__all__ = ["NatsBroker"]
