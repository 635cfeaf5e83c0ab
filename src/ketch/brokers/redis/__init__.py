"""redis: Redis pub/sub. At most once; at least once is redis-streams'.

broker.py     connecting, publishing, subscribing
channels.py   one connection's channels and patterns, and the mailboxes behind them
envelope.py   how an event looks on a channel: CloudEvents' JSON format
"""

from .broker import RedisBroker

__all__ = ["RedisBroker"]
