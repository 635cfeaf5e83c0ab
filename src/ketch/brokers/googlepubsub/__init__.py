"""googlepubsub: Google Cloud Pub/Sub over gRPC, at least once, without the driver's threads.

broker.py         opening, publishing, subscribing
publishing.py     events on their way to one topic: many share one request
subscription.py   a streaming pull that is kept open
leases.py         what came by it, kept from being delivered again, and settling
rpcs.py           the service's methods and its channels
envelope.py       how a message looks on the wire
names.py          topics and groups as Pub/Sub's resources
config.py         the URL's options
"""

from .broker import GooglePubSubBroker

__all__ = ["GooglePubSubBroker"]
