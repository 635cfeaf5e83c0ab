"""grpc-timeout: at most eight digits and a unit."""

from __future__ import annotations

import math
from typing import Final

_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_DIGITS: Final = 8


def parse(text: str) -> float:
    """Return a timeout in seconds.

    Raises:
        ValueError: the text is none.
    """
    digits, unit = text[:-1], text[-1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS and unit in _UNITS):
        raise ValueError(f"grpc-timeout {text[:20]!r} is none")
    return int(digits) * _UNITS[unit]


def render(seconds: float) -> str:
    """Return a timeout as it travels, rounded up to three significant digits.

    Few different texts mean header blocks that the peer has seen before; who waits keeps the exact time.
    """
    if seconds <= 0:
        return "0n"
    micros = seconds * 1e6
    step = 10 ** max(0, math.floor(math.log10(micros)) - 2)
    rounded = math.ceil(micros / step) * step
    for unit, size in (("u", 1), ("m", 1000), ("S", 1_000_000), ("H", 3_600_000_000)):
        if rounded / size < 10 ** (_DIGITS - 2):
            return f"{math.ceil(rounded / size)}{unit}"
    return f"{10**_DIGITS - 1}H"
