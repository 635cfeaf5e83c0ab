"""googlepubsub: Google Cloud Pub/Sub over gRPC, at least once, without the driver's threads.

broker.py         opening, publishing, subscribing
publishing.py     events on their way to one topic: many share one request
subscription.py   a streaming pull, the leases of what came by it, and settling
rpcs.py           the service's methods and its channels
envelope.py       how a message looks on the wire
names.py          topics and groups as Pub/Sub's resources
config.py         the URL's options
"""

from .broker import GooglePubSubBroker

__all__ = ["GooglePubSubBroker"]
