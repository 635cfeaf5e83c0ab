"""Dialect: how instances tell of each other where no server keeps records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ...registry import Instance
    from .commands import Question


@dataclass(frozen=True, slots=True)
class News:
    """One instance was heard of.

    Attributes:
        instance: as it is; its id alone counts when it is gone.
        gone: it says goodbye.
        lives: seconds until it is to be heard of again; 0 where it only speaks when it is asked.
    """

    instance: Instance
    gone: bool = False
    lives: float = 0.0


class Dialect(Protocol):
    """Subjects and messages."""

    def subjects(self, name: str | None) -> list[str]:
        """Return the subjects of announcements that concern those who answer to `name`, all for None."""

    def questions(self, name: str | None) -> list[Question]:
        """Return what to ask so that those who answer to `name` say so."""

    def announcements(self, instances: Collection[Instance]) -> list[Question]:
        """Return what is said by instances that are there.

        Raises:
            RegistryError: one of them can't be told of.
        """

    def farewells(self, instances: Collection[Instance]) -> list[Question]:
        """Return what is said of instances that go."""

    def moved(self, before: Instance, after: Instance) -> list[Question]:
        """Return what is said of an instance by the names that it answers to no more."""

    def read(self, subject: str, headers: bytes, body: bytes) -> Sequence[News]:
        """Return what an announcement or an answer says.

        Raises:
            RegistryError: it is garbage.
        """
