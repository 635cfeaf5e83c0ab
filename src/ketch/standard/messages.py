"""The messages of the standard contracts, in a descriptor pool of their own.

A program may well import somebody else's `health_pb2` too. Two of one name in protobuf's default pool are an error, so
ours are kept out of it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool as Pool


@cache
def pool() -> Pool:
    """Return the pool; read at the first use."""
    made = DescriptorPool()
    for file in FileDescriptorSet.FromString((files(__package__) / "contracts.binpb").read_bytes()).file:
        made.Add(file)
    return made


@cache
def message(name: str) -> Any:
    """Return a message's class by its full name."""
    return GetMessageClass(pool().FindMessageTypeByName(name))
