"""A small Pub/Sub server for tests, on the service's own messages: `python -m ketch.testing.servers.pubsub`.

What Google documents and a plugin can notice is here: leases and their end, redelivery, order by key, flow control of
streaming pulls, fan-out, dead-letter topics, the limits of names and attributes. It keeps a journal, so that it can be
killed. Filters, schemas, push, exactly-once delivery and seeking are not here.

__main__.py       the process
service.py        the methods
subscription.py   events of one subscription: waiting, leased, settled
journal.py        what it needs to come back after it was killed
"""
