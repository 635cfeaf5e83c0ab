"""A member of a group."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ...broker import Delivery, Outcome
from ...errors import BrokerError, BrokerUnavailable
from ...resp.refusal import refusal
from . import names
from .claims import DUE, GIVE_BACK, LEAVE, TEND
from .entry import delivery
from .places import earlier, just_before, last_id, make_group
from .scheduling import release
from .taking import TENDING, Taking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...resp.connection import Argument, Connection

log = logging.getLogger("ketch.broker")

#: Own deliveries for later whose time is remembered; others are found by looking.
_REMEMBERED = 10_000

#: How often a member says that it lives before its silence would count as death.
_WORDS = 6


class Member(Taking):
    """Takes a share of a group's events.

    Args:
        group: the group.
        consumer: what the server knows this member by; no other member of the group has the name.
        claim_after: seconds of silence after which other members are dead.
        others: as for `Taking`.
    """

    def __init__(self, *others: Any, group: str, consumer: str, claim_after: float) -> None:
        super().__init__(*others)
        self._group = group
        self._consumer = consumer
        self._claim_after = claim_after
        self._tending = min(TENDING, claim_after / _WORDS)
        self._due: list[float] = []
        self._strays = False
        self._tended = self._loop.time()
        self._look_at = self._tended + claim_after

    async def _begin(self, connection: Connection, since: float | None) -> None:
        start = "$" if since is None else just_before(since)
        self._position = await make_group(connection, self.topic, self._group, start)

    def _read(self, count: int, milliseconds: int) -> tuple[Argument, ...]:
        return (
            *("XREADGROUP", "GROUP", self._group, self._consumer),
            *("COUNT", count, "BLOCK", milliseconds, "STREAMS", self.topic, ">"),
        )

    # --- what comes again

    async def _tend(self, connection: Connection) -> float:
        if self._strays:
            await self._give_back_strays(connection)
        later = await release(connection, self.topic)
        now = self._loop.time()
        due = await connection.request(
            *("EVAL", TEND, 2, self.topic, names.alive(self.topic, self._group)),
            *(
                self._group,
                names.WAITING,
                DUE,
                self._consumer,
                0 if self._stopping else self._hand.room,
                self._silence_that_is_death(now),
            ),
        )
        self._tended = now
        self._put([delivery(self.topic, entry_id, fields, attempt) for entry_id, fields, attempt in due])
        while self._due and self._due[0] <= now:
            heapq.heappop(self._due)
        return min(now + later, self._due[0] if self._due else math.inf)

    def _silence_that_is_death(self, now: float) -> int:
        """Return the milliseconds after which others are dead, 0 for not to look for them just now."""
        if now - self._tended > max(self._claim_after / 2, 2 * self._tending):
            # Nobody could be heard while we were away ourselves, or the server was; let them speak first.
            self._look_at = now + self._claim_after
        if now < self._look_at:
            return 0
        self._look_at = now + self._claim_after / 4
        return round(self._claim_after * 1000)

    async def _recover(self, connection: Connection) -> None:
        # A server that has come back empty, and whose clock is behind, begins with smaller ids.
        start = earlier(self._position, await last_id(connection, self.topic))
        self._position = await make_group(connection, self.topic, self._group, start)
        self._strays = True

    async def _give_back_strays(self, connection: Connection) -> None:
        """Give back what the server holds to be ours and we don't have: its reply, or our word, was lost on the way."""
        self._strays = False
        pending = await connection.request(
            "XPENDING", self.topic, self._group, "-", "+", len(self._hand) + 1000, self._consumer
        )
        strays: list[Argument] = []
        for entry_id, *_ in pending:
            if entry_id not in self._hand:
                strays += (entry_id, 0, 1)
        if strays:
            await connection.request(*self._script(GIVE_BACK), *strays)

    def _script(self, script: str, *keys: str) -> tuple[Argument, ...]:
        count = 1 + len(keys)
        return ("EVAL", script, count, self.topic, *keys, self._group, names.WAITING, DUE, self._consumer)

    # --- settling

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge what is done, in one command; give the rest back, in another."""
        done: list[Any] = []
        again: list[Any] = []
        due: list[float] = []
        now = self._loop.time()
        for handled, outcome in settled:
            if outcome is Outcome.DONE:
                done.append(handled.raw)
            elif handled.raw in self._hand:
                seconds = min(handled.retry_after, DUE / 1000)
                again += (handled.raw, round(seconds * 1000), 1)
                due.append(now + seconds)
        try:
            await self._tell(done, again)
        except BrokerUnavailable:
            self._strays = True
            raise
        except ReplyError as error:
            self._strays = True
            raise refusal(self._config.location, f"can't settle events of {self.topic}", error) from error
        finally:
            self._hand.drop(handled for handled, _ in settled)
        if due:
            self._expect(due)

    async def _tell(self, done: list[Any], again: list[Any]) -> None:
        connection = await self._main.up()
        replies = []
        if done:
            replies.append(connection.request("XACK", self.topic, self._group, *done))
        if again:
            replies.append(connection.request(*self._script(GIVE_BACK), *again))
        if len(replies) == 1:
            await replies[0]
        else:
            await asyncio.gather(*replies)

    def _expect(self, due: list[float]) -> None:
        for when in due:
            if len(self._due) < _REMEMBERED:
                heapq.heappush(self._due, when)
        self._hurry(min(due))

    async def close(self) -> None:
        """Stop, and give back what was not settled."""
        if not self._closed:
            await self.stop()
            await self._leave()
            await super().close()

    async def _leave(self) -> None:
        untried: list[Any] = self._hand.untried()
        try:
            alive = names.alive(self.topic, self._group)
            await self._main.call(*self._script(LEAVE, alive), *untried)
        except (BrokerError, ReplyError) as error:
            # Then we look dead to the others.
            log.warning(
                "redis-streams: left %s of %s without the server's answer, what was in hand comes again in %g s: %s",
                *(self._group, self.topic, self._claim_after, error),
            )
