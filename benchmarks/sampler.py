"""Sampler: where a process spends its processor time, by a signal for every few milliseconds of it.

The interpreter runs a signal's handler between two instructions, and looks only where a function begins, where a loop
goes round and after a call of something written in C. So what was going on is read from where it stands: after such a
call it was that call; at the start of a function that nothing in Python called, it was the event loop, reading a socket
or switching tasks.
"""

from __future__ import annotations

import dis
import linecache
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType, FrameType

#: Seconds of processor time between two looks; Linux counts in ticks of its own, mostly of four milliseconds.
_EVERY: Final = 0.001
_SOURCES: Final = Path(__file__).resolve().parents[1] / "src"
_C_CALL: Final = re.compile(r"^(?:await )?([\w.]+)\(", re.DOTALL)
#: What is called -> whose time that is.
_PROTOBUF: Final = re.compile(r"\b(FromString|SerializeToString|parse|serialize)$")
_LOOP: Final = re.compile(
    r"\b(write|call_soon|call_later|create_task|create_future|Task|_spawn|set_result|getsockname)$"
)
LOOP: Final = "the event loop itself"


class Sampler:
    """Counts samples by (layer, function) between `start` and `stop`."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[CodeType, int, bool]] = Counter()

    def start(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)

    def stop(self) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is not None:
            back = frame.f_back
            called = back is not None and "asyncio" not in back.f_code.co_filename
            self.seen[frame.f_code, frame.f_lasti, called] += 1

    def table(self) -> Counter[tuple[str, str]]:
        """Return the samples by layer and function."""
        found: Counter[tuple[str, str]] = Counter()
        for (code, at, called), count in self.seen.items():
            found[_place(code, at, called=called)] += count
        return found


def _place(code: CodeType, at: int, *, called: bool) -> tuple[str, str]:
    operation = next((step for step in dis.get_instructions(code) if step.offset == at), None)
    name = operation.opname if operation else ""
    if name == "RESUME" and not called:
        return "event loop", LOOP
    where = _where(code)
    if name.startswith(("CALL", "PRECALL")) and operation is not None and operation.positions is not None:
        callee = _callee(code.co_filename, operation.positions)
        if _LOOP.search(callee):
            return "event loop", f"{callee.rpartition('.')[2]}() in {where[1]}"
        if _PROTOBUF.search(callee):
            return "protobuf", f"{callee.rpartition('.')[2]}() in {where[1]}"
    return where


def _callee(file: str, positions: dis.Positions) -> str:
    """Return what is called, as the source has it, and "" where that is no plain name."""
    first, last, start = positions.lineno, positions.end_lineno, positions.col_offset
    if first is None or last is None or start is None:
        return ""
    match = _C_CALL.match(linecache.getline(file, first).encode()[start:].decode())
    return match[1] if match else ""


def _where(code: CodeType) -> tuple[str, str]:
    file = Path(code.co_filename)
    if file.is_relative_to(_SOURCES):
        inside = file.relative_to(_SOURCES / "ketch")
        layer = f"ketch.{inside.parts[0]}" if inside.parts[0] in ("http2", "grpc") else "ketch, typed"
        return layer, f"{inside.with_suffix('').as_posix()}:{code.co_qualname}"
    if "asyncio" in file.parts or file.stem == "_weakrefset":  # the set of all tasks
        return "event loop", f"{file.stem}:{code.co_qualname}"
    if "hpack" in file.parts:
        return "ketch.http2", f"hpack/{file.stem}:{code.co_qualname}"
    return (
        "handler and caller" if file.parent == Path(__file__).parent else "other"
    ), f"{file.stem}:{code.co_qualname}"
