"""Burial: where events go that can't be handled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..broker import DEAD_LETTERS
from ..deadletter import DeadLetter
from ..errors import MessageTooLarge

if TYPE_CHECKING:
    from ..broker import Broker, Delivery

log = logging.getLogger("ketch.consumer")


class Burial:
    """Puts events with the dead letters.

    Only brokers that redeliver keep them. Elsewhere, or with `topic` None, an event that can't be handled is dropped,
    which the log says.

    Args:
        broker: open.
        topic: the dead letters' topic.
        group: whose handler gives events up.
        handler: its name.
    """

    def __init__(self, broker: Broker, topic: str | None, group: str | None, handler: str) -> None:
        self._broker = broker
        self._topic = topic if broker.capabilities.redelivers else None
        self._group = group
        self._handler = handler

    async def declare(self) -> None:
        """See to it that dead letters are kept until somebody looks at them.

        Raises:
            BrokerError: the broker doesn't let us.
        """
        if self._topic is not None:
            await self._broker.declare(self._topic, group=DEAD_LETTERS)

    async def bury(self, delivery: Delivery, error: BaseException) -> None:
        """Put an event with the dead letters; at return the broker has it.

        Raises:
            BrokerError: the broker did not take it.
        """
        message, tries = delivery.message, max(delivery.failures, 1)
        if self._topic is None or message.topic == self._topic:
            log.error("%s: dropped %r after %d tries: %s", self._handler, message, tries, _short(error))
            return
        said = DeadLetter.of(message, self._group, self._handler, error, tries)
        try:
            await self._broker.publish(said.letter(message, self._topic))
        except MessageTooLarge:
            await self._broker.publish(said.letter(message, self._topic, trace=False))
        log.error(
            "%s: gave %r up after %d tries, it is with the dead letters (ketch dead list): %s",
            self._handler,
            message,
            tries,
            _short(error),
        )


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
