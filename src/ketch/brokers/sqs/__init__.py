"""sqs: events through Amazon SNS topics to SQS queues, through aiobotocore. At least once, unordered.

broker.py         opening, publishing, subscribing
config.py         the URL's options
names.py          what topics and groups are called there
wire.py           how a message looks there: text and ten attributes
aws.py            calls: retries, and whether AWS can be reached
failures.py       the driver's errors, judged and mapped
outbox.py         publishing in batches of ten
place.py          a topic, its queue, and what binds them
leftovers.py      queues of subscriptions without a group whose process crashed
subscription.py   receiving and settling
polls.py          long polls, as many as the load asks for
hand.py           what was taken and not settled, bounded
receipts.py       deleting and postponing what was received, in batches of ten
"""

from .broker import SqsBroker

__all__ = ["SqsBroker"]
