"""Records: what this process has registered, as keys that live by one lease.

See etcd.io/docs/v3.5/learning/api, "Lease API".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import NotFound, RegistryError
from .etcd_pb2 import (
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from .link import LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, LEASE_TIME_TO_LIVE, TXN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from ...registry import Instance
    from .layout import Layout
    from .link import Link

#: What goes into one transaction: etcd takes 128 operations (--max-txn-ops) and 1.5 MiB (--max-request-bytes).
_MOST_OPERATIONS = 100
_MOST_BYTES = 1024 * 1024


class Records:
    """Keys of one lease. Calls that write are made one after the other: `Upkeep.lock` sees to that.

    Attributes:
        lease: its id, 0 before there is one.
    """

    def __init__(self, link: Link, layout: Layout, ttl: int) -> None:
        self.lease = 0
        self._link = link
        self._layout = layout
        self._ttl = ttl
        self._renewed = 0.0
        self._looked = 0.0
        self._filed: dict[str, Instance] = {}
        #: Keys that may be there though they should not: writing or removing them failed.
        self._stray: set[bytes] = set()

    async def write(self, instances: Collection[Instance]) -> None:
        """See to it that the instances are there for another time to live.

        Raises:
            RegistryError: etcd can't be written.
        """
        await self._renew()
        try:
            await self._file(instances)
        except RegistryError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            await self._grant()  # the lease has run out just now
            await self._file(instances)

    async def remove(self, instance: Instance) -> None:
        """Take an instance's record away; not if it is another process's by now, where it was ours before.

        Raises:
            RegistryError: etcd can't be written; a record of ours is removed when it can.
        """
        filed = self._filed.pop(instance.id, None)
        keys = self._layout.keys(instance if filed is None else filed)
        remove = _delete if filed is None else self._delete_ours
        try:
            await self._commit(remove(key) for key in keys)
        except RegistryError:
            if filed is not None:
                self._stray.update(keys)
            raise

    async def revoke(self) -> None:
        """Take everything away that is ours.

        Raises:
            RegistryError: etcd can't be written; it goes by itself after its time to live.
        """
        lease, self.lease = self.lease, 0
        self._filed.clear()
        if lease:
            try:
                await self._link.call(LEASE_REVOKE, LeaseRevokeRequest(id=lease))
            except RegistryError as error:
                if not isinstance(error.__cause__, NotFound):
                    raise

    async def _renew(self) -> None:
        clock = asyncio.get_running_loop().time
        if not self.lease:
            await self._grant()
        elif clock() - self._renewed > self._ttl / 6:
            answer = await self._link.ask(LEASE_KEEP_ALIVE, LeaseKeepAliveRequest(id=self.lease))
            if answer.ttl <= 0:
                await self._grant()
            elif clock() - self._looked > self._ttl:
                await self._look()
            self._renewed = clock()

    async def _grant(self) -> None:
        answer = await self._link.call(LEASE_GRANT, LeaseGrantRequest(ttl=self._ttl))
        self.lease = answer.id
        self._renewed = self._looked = asyncio.get_running_loop().time()
        self._filed.clear()

    async def _look(self) -> None:
        """See which keys the lease still has: one that somebody else has deleted is written anew."""
        request = LeaseTimeToLiveRequest(id=self.lease, keys=True)
        there = set((await self._link.call(LEASE_TIME_TO_LIVE, request)).keys)
        lost = [one for one in self._filed.values() if not there.issuperset(self._layout.keys(one))]
        for instance in lost:
            del self._filed[instance.id]
        self._looked = asyncio.get_running_loop().time()

    async def _file(self, instances: Iterable[Instance]) -> None:
        new = [instance for instance in instances if self._filed.get(instance.id) != instance]
        operations = {key: operation for instance in new for key, operation in self._moves(instance)}
        strays = self._stray - set(operations)
        if strays:
            strays -= {key for instance in self._filed.values() for key in self._layout.keys(instance)}
        if not operations and not strays:
            return
        self._stray.update(operations)
        await self._commit([*operations.values(), *(self._delete_ours(key) for key in strays)])
        self._stray.clear()
        self._filed.update((instance.id, instance) for instance in new)

    def _moves(self, instance: Instance) -> Iterator[tuple[bytes, RequestOp]]:
        """Yield what puts a record in its places, and takes the one before it from where it no longer belongs."""
        keys, value = self._layout.keys(instance), self._layout.encode(instance)
        before = self._filed.get(instance.id)
        for key in () if before is None else self._layout.keys(before):
            if key not in keys:
                yield key, self._delete_ours(key)
        for key in keys:
            yield key, RequestOp(request_put=PutRequest(key=key, value=value, lease=self.lease))

    def _delete_ours(self, key: bytes) -> RequestOp:
        """Return what deletes a key, provided that it still lives by our lease."""
        ours = Compare(key=key, target=Compare.LEASE, result=Compare.EQUAL, lease=self.lease)
        return RequestOp(request_txn=TxnRequest(compare=[ours], success=[_delete(key)]))

    async def _commit(self, operations: Iterable[RequestOp]) -> None:
        for batch in _batches(operations):
            await self._link.call(TXN, TxnRequest(success=batch))


def _delete(key: bytes) -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key))


def _batches(operations: Iterable[RequestOp]) -> Iterator[list[RequestOp]]:
    batch: list[RequestOp] = []
    size = 0
    for operation in operations:
        more = operation.ByteSize()
        if batch and (len(batch) >= _MOST_OPERATIONS or size + more > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += more
    if batch:
        yield batch
