"""stomp: STOMP 1.2 to ActiveMQ, at least once, over a small client of our own.

frames.py         the protocol's frames as bytes and back; no IO
envelope.py       an event as destination, headers and body
config.py         the URL's options
connection.py     frames over a socket, in batches
link.py           a connection that is made again
publisher.py      events on their way out, until they are confirmed
subscription.py   what comes from a destination, and what became of it
broker.py         connecting, publishing, subscribing
"""

from .broker import StompBroker

__all__ = ["StompBroker"]
