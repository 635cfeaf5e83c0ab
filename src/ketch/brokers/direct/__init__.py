"""direct: events from process to process, without a broker in between. The default: nothing to install.

broker.py     finds a topic's subscribers in the registry and hands each event to whom it is for
audience.py   who gets a topic's next event
peer.py       one receiving process: batches, back-pressure, reconnecting
inbox.py      the receiving side
wire.py       a message as a CloudEvent of the protobuf format, and back
"""

from .broker import DirectBroker

__all__ = ["DirectBroker"]
