"""Selector: picks the instance that a call goes to.

A selector is a function from the instances there are, at least one, to one of them. It may keep state of its own,
so a client is given a function that makes one: `Client(selector=round_robin)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .registry import Instance

Selector: TypeAlias = Callable[[Sequence[Instance]], Instance]
SelectorMaker: TypeAlias = Callable[[], Selector]
