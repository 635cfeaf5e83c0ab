"""http: go-micro's default broker, for Go services that have no other: each event is a request.

broker.py     finds a topic's subscribers in the registry and hands each event to whom it is for
peer.py       one receiving process: its connection, what waits for it
server.py     the receiving side: HTTP/1.1, as far as this takes
head.py       the lines before a body
"""

from .broker import HttpBroker

__all__ = ["HttpBroker"]
