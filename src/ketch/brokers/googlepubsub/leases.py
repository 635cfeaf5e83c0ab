"""Leases: what one subscription has in hand, kept from being delivered again, and its settling.

A lease is Pub/Sub's ack deadline; one timer extends those of all deliveries in hand. Acknowledgements and extensions
are calls of their own, which answer; in the stream they would not.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.pubsub_v1 import types

from ...broker import Delivery, Outcome
from ...errors import BrokerError
from .envelope import unwrap
from .rpcs import Rpcs, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .config import Config

log = logging.getLogger("ketch.broker")

_Acknowledge: Any = types.AcknowledgeRequest.pb()
_ModifyDeadline: Any = types.ModifyAckDeadlineRequest.pb()

#: Ids in one request, which may have 512 KiB; an id takes about 200 bytes.
_MOST_IDS = 2000

#: Seconds after which a delivery that is given back comes at the latest.
_LONGEST_DEADLINE = 600

#: Deliveries whose number of attempts is remembered after they were given back.
_REMEMBERED = 4096


class Leases:
    """Deliveries that are this member's, by their message's id."""

    def __init__(self, rpcs: Rpcs, config: Config, path: str) -> None:
        self._rpcs = rpcs
        self._config = config
        self._path = path
        self._held: dict[str, Delivery] = {}
        self._attempts: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, topic: str, received: Iterable[Any]) -> list[Delivery]:
        """Return what came, without that which is in hand already."""
        held = self._held
        fresh: list[Delivery] = []
        for one in received:
            id_ = one.message.message_id
            known = held.get(id_)
            if known is not None:
                known.raw = (id_, one.ack_id)  # the one in hand, once more: it is settled by its newest name
                continue
            attempt = one.delivery_attempt or self._attempts.pop(id_, 1)
            delivery = held[id_] = Delivery(unwrap(topic, one.message), attempt, (id_, one.ack_id))
            fresh.append(delivery)
        return fresh

    async def extend(self) -> None:
        """Keep what is in hand from being delivered again, until cancelled."""
        seconds = self._config.ack_deadline
        while True:
            await asyncio.sleep(seconds / 3)
            if self._held:
                try:
                    await self._modify(self._ack_ids(), seconds)
                except BrokerError as error:
                    log.warning("googlepubsub: deliveries in hand may come again: %s", error)

    def _ack_ids(self) -> list[str]:
        held: Iterable[Any] = self._held.values()
        return [delivery.raw[1] for delivery in held]

    def forget(self, settled: Sequence[tuple[Delivery, Outcome]]) -> tuple[list[str], dict[int, list[str]]]:
        """Let go of deliveries; return the ack ids of those that are done, and of the others by seconds to wait."""
        done: list[str] = []
        again: dict[int, list[str]] = {}
        for delivery, outcome in settled:
            raw: Any = delivery.raw
            id_, ack_id = raw
            if self._held.pop(id_, None) is None:
                continue  # given back when the subscription was closed
            if outcome is Outcome.DONE:
                done.append(ack_id)
            else:
                self._remember(id_, delivery.attempt + 1)
                seconds = min(math.ceil(delivery.retry_after), _LONGEST_DEADLINE)
                again.setdefault(seconds, []).append(ack_id)
        return done, again

    def _remember(self, id_: str, attempt: int) -> None:
        self._attempts[id_] = attempt
        if len(self._attempts) > _REMEMBERED:
            self._attempts.popitem(last=False)

    async def settle(self, done: list[str], again: dict[int, list[str]]) -> None:
        """Acknowledge, and end leases now or after whole seconds.

        Raises:
            BrokerError: the service did not take it.
        """
        for at in range(0, len(done), _MOST_IDS):
            request = _Acknowledge(subscription=self._path, ack_ids=done[at : at + _MOST_IDS])
            await self._call(self._rpcs.acknowledge, request)
        for seconds, ids in again.items():
            await self._modify(ids, seconds)

    async def give_back(self) -> None:
        """End all leases."""
        ids = self._ack_ids()
        self._held.clear()
        try:
            await self._modify(ids, 0)
        except BrokerError as error:
            log.info("googlepubsub: %d deliveries come again after their lease: %s", len(ids), error)

    async def _modify(self, ids: list[str], seconds: int) -> None:
        for at in range(0, len(ids), _MOST_IDS):
            request = _ModifyDeadline(
                subscription=self._path, ack_ids=ids[at : at + _MOST_IDS], ack_deadline_seconds=seconds
            )
            await self._call(self._rpcs.modify_deadline, request)

    async def _call(self, method: Any, request: Any) -> None:
        try:
            await self._rpcs.call(method, request, "subscription", self._path, self._config.timeout)
        except grpc.aio.AioRpcError as error:
            raise explain(error, self._config.location, f"{len(request.ack_ids)} deliveries weren't settled") from error
