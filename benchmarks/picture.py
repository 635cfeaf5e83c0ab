"""Picture: curves on logarithmic axes as an SVG whose colours are readable on white and on black."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What the x axis counts -> who -> points.
Panels: TypeAlias = "Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]"

_COLOURS: Final = ("#3b82f6", "#e0742a", "#2fa36b", "#b457c9", "#c2410c")
_GREY: Final = "#808690"
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 230, 62, 58, 28


def draw(title: str, unit: str, panels: Panels, *, ends: bool = False) -> str:
    """Return the SVG; all panels share the y axis, whose unit is `unit`. `ends`: figures at the last points only."""
    values = [y for curves in panels.values() for points in curves.values() for _, y in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    legend, end = _legend(names)
    width = max(_LEFT + len(panels) * (_WIDTH + _GAP), end, _LEFT + 8 * len(title))
    parts = [_text(_LEFT, 20, title, weight=600, anchor="start"), *legend]
    parts.append(f'<text transform="translate(14 {_TOP + _HEIGHT / 2}) rotate(-90)" text-anchor="middle">{unit}</text>')
    for number, (label, curves) in enumerate(panels.items()):
        parts += _panel(
            _LEFT + number * (_WIDTH + _GAP), label, curves, (low, high), names, first=not number, ends=ends
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_TOP + _HEIGHT + 50}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_GREY}">\n<title>{title}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    """Return the legend, and where it ends."""
    parts, x = [], _LEFT
    for number, name in enumerate(names):
        parts.append(f'<path d="M{x} 38h18" stroke="{_COLOURS[number]}" stroke-width="2.5"/>')
        parts.append(_text(x + 24, 42, name, anchor="start"))
        x += max(110, 50 + 7 * len(name))
    return parts, x


def _panel(
    left: int,
    label: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    span: tuple[int, int],
    names: Sequence[str],
    *,
    first: bool,
    ends: bool,
) -> list[str]:
    ticks = sorted({x for points in curves.values() for x, _ in points})
    least = min(ticks)
    decades = math.log10(max(ticks) / least) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + 10 + (_WIDTH - 20) * math.log10(x / least) / decades
        return across, _TOP + _HEIGHT * (span[1] - math.log10(y)) / (span[1] - span[0])

    parts = [f'<g stroke="{_GREY}" stroke-opacity="0.35">']
    parts += [f'<path d="M{left} {place(least, 10**p)[1]:.1f}h{_WIDTH}"/>' for p in range(span[0], span[1] + 1)]
    parts.append("</g>")
    if first:
        parts += [_text(left - 6, place(least, 10**p)[1] + 4, f"{10**p:,}", anchor="end") for p in range(*span)]
        parts.append(_text(left - 6, _TOP + 4, f"{10 ** span[1]:,}", anchor="end"))
    parts += [_text(place(x, 1)[0], _TOP + _HEIGHT + 18, f"{x:,}") for x in ticks]
    parts.append(_text(left + _WIDTH / 2, _TOP + _HEIGHT + 38, label, weight=600))
    for name, points in curves.items():
        colour = _COLOURS[names.index(name)]
        beside = 16 if name == names[-1] else -8  # the lowest curve has its figures below
        spots = [place(x, y) for x, y in points]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for (x, y), (_, value) in zip(spots, points, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
            if not ends or (x, y) == spots[-1]:
                parts.append(_text(x, y + beside, f"{value:,.0f}", colour=colour, size=10))
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", weight: int = 400, colour: str = _GREY, size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'font-size="{size}" fill="{colour}">{text}</text>'
    )
