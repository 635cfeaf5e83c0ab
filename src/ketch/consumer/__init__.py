"""Consumer: takes deliveries, limits, decodes, dispatches and settles. The only place that acknowledges.

consumer.py    Consumer: one handler's subscription from start to close; restarts it when it is lost
terms.py       Terms: what a subscriber asks for
decoding.py    from a message to its payload
handling.py    Handling: from a delivery to the handler, and what a failure means
burial.py      Burial: where events go that can't be handled
settler.py     Settler: tells the broker, in batches
serial.py      one event after the other
parallel.py    several at a time, those of a key in order
batches.py     many at once
pace.py        how many events to take ahead
"""

from .consumer import Consumer
from .terms import Terms

__all__ = ["Consumer", "Terms"]
