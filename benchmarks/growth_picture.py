"""Pictures of growth: lines on two logarithmic axes, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 170, 32, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Those of Okabe and Ito, which the colour-blind can tell apart."""
LEAST = 1e-3

Series = Mapping[str, Sequence[tuple[float, float]]]


def drawn(series: Series, axis: str, unit: str) -> str:
    """Return a picture of the lines: points (size, number), both above 0, ascending sizes."""
    sizes = [size for points in series.values() for size, _ in points]
    numbers = [max(LEAST, number) for points in series.values() for _, number in points]
    across, up = _decades(sizes), _decades(numbers)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(across[0], across[1] + 1):
        x = _place(10.0**power, across, LEFT, WIDTH - RIGHT)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM), _text(x, HEIGHT - BOTTOM + 16, _word(power))]
    for power in range(up[0], up[1] + 1):
        y = _place(10.0**power, up, HEIGHT - BOTTOM, TOP)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 6, y + 4, _word(power), "end")]
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = [
            (
                _place(size, across, LEFT, WIDTH - RIGHT),
                _place(max(LEAST, value), up, HEIGHT - BOTTOM, TOP),
            )
            for size, value in points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        row = TOP + 14 + 18 * number
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 14}" y="{row - 9}" width="10" height="10" fill="{colour}"/>'
        )
        parts.append(_text(WIDTH - RIGHT + 30, row, name, "start"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts += [_text(middle, HEIGHT - 8, axis), _text(6, TOP - 16, unit, "start"), "</svg>"]
    return "\n".join(parts) + "\n"


def _decades(numbers: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(numbers)) + 1e-9)
    return low, max(low + 1, math.ceil(math.log10(max(numbers)) - 1e-9))


def _place(number: float, decades: tuple[int, int], start: float, end: float) -> float:
    share = (math.log10(number) - decades[0]) / (decades[1] - decades[0])
    return start + share * (end - start)


def _word(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
