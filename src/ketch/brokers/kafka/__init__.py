"""kafka: events in partitioned logs, at least once, through aiokafka.

config.py         the URL's options
wire.py           how a message looks: the CloudEvents binding of Kafka
topics.py         topics made, and where new groups begin
progress.py       which offsets of a partition are settled
subscription.py   one member of a group
leaving.py        leaving it
broker.py         connecting and publishing
"""

from .broker import KafkaBroker

__all__ = ["KafkaBroker"]
