"""Answering: what is told to those who ask."""

from __future__ import annotations

import asyncio
from random import uniform
from typing import TYPE_CHECKING, Final

from .packet import PTR, Packet, Question, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...registry import Instance
    from .ether import Ether
    from .forms import Form
    from .packet import Record

#: Packets that are sent in one go: sockets' buffers are small.
BURST: Final = 20
#: An answer that others may give as well waits for so long (RFC 6762 section 6), in seconds.
_JITTER: Final = (0.02, 0.12)


class Answering:
    """Answers questions about the instances that are registered here.

    Args:
        form: how they look on the wire.
        ether: where answers go.
        port: the group's; who asks from another one gets a plain DNS answer (RFC 6762 section 6.7).
        ttl: of the records, in seconds.
    """

    def __init__(self, form: Form, ether: Ether, port: int, ttl: float) -> None:
        self._form = form
        self._ether = ether
        self._port = port
        self._ttl = ttl

    def find(self, packet: Packet, held: Iterable[Instance]) -> list[tuple[Record, ...]]:
        """Return the records of those that are asked for and that the asker doesn't know (its section 7.1)."""
        known = {one.data for one in packet.records if one.kind == PTR and one.ttl >= self._ttl / 2}
        found = []
        for instance in held:
            if self._form.label(instance) in known:
                continue
            told = self._form.tell(instance, max(1, round(self._ttl)))
            answers = (self._form.answer(question, told) for question in packet.questions)
            found += [answer for answer in dict.fromkeys(answers) if answer]
        return found

    async def give(self, answers: list[tuple[Record, ...]], packet: Packet, source: tuple[str, int]) -> None:
        """Send answers: to everybody after a moment, or to the asker alone if it asks so."""
        plainly = source[1] != self._port or any(question.unicast for question in packet.questions)
        if not plainly:
            await asyncio.sleep(uniform(*_JITTER))  # noqa: S311 - spreading needs no secret
        asked: tuple[Question, ...] = packet.questions if plainly else ()
        for number, told in enumerate(answers):
            if number % BURST == BURST - 1:
                await asyncio.sleep(0.005)
            if plainly:
                self._ether.answer(encode(Packet(asked, told, response=True, id=packet.id)), source)
            else:
                self._ether.send(encode(Packet((), told, response=True)))
