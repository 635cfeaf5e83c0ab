"""Questions: asked over a link, with one answer each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ...errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...nats.wire import Received
    from .commands import Question
    from .link import Link

#: Questions that may be unanswered at a time; more are asked as answers come.
_IN_FLIGHT = 256


class Questions:
    """Asks, and waits for the answers on a subject of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inbox = ""
        self._asked: dict[str, asyncio.Future[Received]] = {}
        self._numbers = 0

    async def ask(self, subject: str, body: bytes = b"") -> bytes | None:
        """Return the answer to one question, None where nobody listens.

        Raises:
            RegistryError: there is no answer within the timeout.
        """
        (answer,) = await self.ask_all([(subject, b"", body)])
        return answer

    async def ask_all(self, questions: Sequence[Question]) -> list[bytes | None]:
        """Return the answers to questions, in their order; None where nobody listens.

        Raises:
            RegistryError: some aren't answered within the timeout.
        """
        answers: list[bytes | None] = []
        for at in range(0, len(questions), _IN_FLIGHT):
            answers += await self._ask_some(questions[at : at + _IN_FLIGHT])
        return answers

    async def _ask_some(self, questions: Sequence[Question]) -> list[bytes | None]:
        waiting: dict[str, asyncio.Future[Received]] = {}
        link = self._link
        try:
            async with asyncio.timeout(link.access.timeout):
                if not self._inbox:
                    inbox = link.inbox()
                    await link.answer(f"{inbox}.*", self._take)
                    self._inbox = inbox
                await link.tell_each([(*question, self._expect(waiting)) for question in questions])
                return [_answer(await answer) for answer in waiting.values()]
        except TimeoutError:
            subject = questions[0][0]
            raise RegistryError(f"{link.access.location}: {link.refusal(subject) or link.why or 'no answer'}") from None
        finally:
            for token in waiting:
                self._asked.pop(token, None)

    def _expect(self, waiting: dict[str, asyncio.Future[Received]]) -> str:
        self._numbers += 1
        token = f"{self._inbox}.{self._numbers:x}"
        waiting[token] = self._asked[token] = asyncio.get_running_loop().create_future()
        return token

    async def _take(self, batch: list[Received]) -> None:
        for received in batch:
            answer = self._asked.pop(received[0], None)
            if answer is not None and not answer.done():
                answer.set_result(received)


def _answer(received: Received) -> bytes | None:
    headers = received[1]
    return None if headers is not None and headers.status.startswith("503") else received[2]
