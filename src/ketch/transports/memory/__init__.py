"""Transport `memory`: calls within one process and event loop, without sockets, as tests want them.

    memory
    memory://world-1        listeners of one name are not seen under another

It keeps the whole contract: bytes cross, nothing else does; messages are bounded, streams push back, deadlines,
cancellation, statuses and stopping are as over gRPC. Options: `max_message_size` in bytes.
"""

from .reach import MemoryTransport

__all__ = ["MemoryTransport"]
