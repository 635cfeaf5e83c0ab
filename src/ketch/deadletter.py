"""Dead letter: an event that could not be handled, as an event of the dead letters' topic.

It is the event as it was, headers and body, and beside them headers that tell its story:

    ketch-dead-topic     where it was published
    ketch-dead-group     whose handler gave it up, "" for a subscription without a group
    ketch-dead-handler   `module.function`
    ketch-dead-reason    one line
    ketch-dead-error     the error's class, "" for none
    ketch-dead-trace     its traceback, or the end of it
    ketch-dead-attempts  how often it was tried
    ketch-dead-time      when it was given up, RFC 3339
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .message import EDITION, ONLY_GROUP, Message, new_id, now

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "ketch-dead-"

#: Characters kept of the reason and, from its end, of the traceback.
_REASON: Final = 500
_TRACE: Final = 4000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a dead letter says; see the module."""

    topic: str
    group: str
    handler: str
    reason: str
    error: str = ""
    trace: str = ""
    attempts: int = 1
    time: str = ""

    @classmethod
    def of(cls, message: Message, group: str | None, handler: str, error: BaseException, attempts: int) -> DeadLetter:
        """Return what is to be said of an event that ended with an error."""
        return cls(
            message.topic,
            group or "",
            handler,
            _one_line(str(error)) or type(error).__name__,
            f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
            "".join(traceback.format_exception(error))[-_TRACE:],
            attempts,
            now(),
        )

    @classmethod
    def read(cls, message: Message) -> DeadLetter:
        """Return what a dead letter says; what it doesn't say is empty."""
        headers = message.headers

        def said(name: str) -> str:
            return headers.get(_PREFIX + name, "")

        attempts = said("attempts")
        return cls(
            said("topic"),
            said("group"),
            said("handler"),
            said("reason"),
            said("error"),
            _unescape(said("trace")),
            int(attempts) if attempts.isdecimal() else 1,
            said("time"),
        )

    def letter(self, message: Message, topic: str, *, trace: bool = True) -> Message:
        """Return the dead letter of a message.

        Args:
            message: the event.
            topic: the dead letters' topic.
            trace: whether the traceback is in it; without, it is smaller.
        """
        story = {
            "topic": self.topic,
            "group": self.group,
            "handler": self.handler,
            "reason": self.reason,
            "error": self.error,
            "attempts": str(self.attempts),
            "time": self.time,
        }
        if trace and self.trace:
            story["trace"] = _escape(self.trace)
        headers = {**_plain(message.headers), **{_PREFIX + name: text for name, text in story.items()}}
        # Of one event there may be a letter from each group, and each time that it is given up anew.
        headers[EDITION] = f"dead/{self.group}/{message.headers.get(EDITION, '')}"
        return Message(topic, headers, message.body)

    def replay(self, letter: Message) -> Message:
        """Return the event to be published again, for the group alone that gave it up."""
        headers = _plain(letter.headers)
        headers[EDITION] = f"replay/{new_id()}"
        if self.group:
            headers[ONLY_GROUP] = self.group
        return Message(self.topic, headers, letter.body)


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("ketch-")}


def _one_line(text: str) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(line.split())[:_REASON]


def _escape(text: str) -> str:
    """Return a text as headers can carry it: ASCII without control characters."""
    plain = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return plain.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(text: str) -> str:
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
