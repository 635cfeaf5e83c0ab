"""Transport `nats`: calls over NATS, found by its subjects.

transport.py   the plugin
config.py      what its URL may say
post.py        one connection's inbox: what comes in, by token
pipe.py        a byte stream between two programs, made of messages; HTTP/2 runs over it as over a socket
channel.py     calls out: a unary one is a request and its reply, all else goes over a pipe
listener.py    calls in: both kinds, shared among a service's instances
answering.py   a request that came in: read, handled, answered
asking.py      a request that goes out, and what comes back
words.py       the headers that both sides use
"""

from .transport import NatsTransport as NatsTransport
