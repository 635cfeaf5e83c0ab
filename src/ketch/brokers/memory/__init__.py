"""memory: events within one process, through real queues; what tests and single programs need."""

from .broker import MemoryBroker

__all__ = ["MemoryBroker"]
