"""redis-streams: Redis Streams, at least once.

broker.py      connecting, publishing, subscribing
entry.py       how an event looks in a stream: its fields
names.py       keys and names in the server
taking.py      what both kinds of subscriptions share: reading ahead, up to the prefetch
hand.py        what was taken and not settled
alone.py       a subscription without a group
member.py      a member of a group: settling, giving back, taking over from the dead
claims.py      the scripts that do so on the server
scheduling.py  events for later
trimming.py    what nobody needs any more is removed
"""

from .broker import RedisStreamsBroker

__all__ = ["RedisStreamsBroker"]
