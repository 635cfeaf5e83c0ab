"""kafka: events in partitioned logs, at least once, through aiokafka.

config.py         the URL's options
names.py          what topics and groups are called in Kafka
wire.py           how a message looks: the CloudEvents binding of Kafka
topics.py         topics made, and where new groups begin
deadlines.py      one timer for all publications
publishing.py     one producer
progress.py       which offsets of a partition are settled
later.py          what was given back, until it is due
hand.py           what one member has taken, of all its partitions
commits.py        tells the group how far its member has come
leaving.py        ends a driver's consumer in bounded time
listener.py       what the driver tells of rebalances
subscription.py   one member of a group
broker.py         connecting and subscribing
"""

from .broker import KafkaBroker

__all__ = ["KafkaBroker"]
