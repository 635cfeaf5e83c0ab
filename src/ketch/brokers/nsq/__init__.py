"""nsq: NSQ over its own TCP protocol, at least once, without a driver.

broker.py         opening, publishing, subscribing
publishing.py     events on their way: those of one topic share a command, commands share round trips
subscription.py   one channel's events from every nsqd, and settling
link.py           one connection that takes a channel's events, kept up
connection.py     a connection: handshake, heartbeats, commands and answers
protocol.py       the protocol's bytes, without any IO
envelope.py       how an event looks as the body of a message, which is all that NSQ has
names.py          topics and groups as NSQ's topics and channels
config.py         the URL's options
"""

from .broker import NsqBroker

__all__ = ["NsqBroker"]
