"""Small static SVG plots: inline, escaped, coloured by CSS classes, readable without scripts.

A figure of a report is a few hundred marks; drawn as SVG it needs no library in the page, prints,
and follows the reader's light or dark theme. Hovering shows each mark's ``<title>``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Scale = Callable[[float], float]


@dataclass
class Canvas:
    """A growing SVG picture of ``width`` by ``height`` units; ``title`` is read aloud."""

    width: float
    height: float
    title: str
    _parts: list[str] = field(default_factory=list)
    """Elements, whose texts and attributes are escaped as they are added."""

    def add(
        self,
        tag: str,
        text: str | None = None,
        tip: str | None = None,
        **attributes: str | float | None,
    ) -> None:
        """Append an element: ``css`` is its class, ``_`` becomes ``-``, None is left out."""
        title = f"<title>{escape(tip)}</title>" if tip else ""
        words = escape(text) if text is not None else ""
        self._parts.append(f"<{tag}{_attributes(attributes)}>{title}{words}</{tag}>")

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        css: str,
        tip: str | None = None,
        **more: str,
    ) -> None:
        """Append a straight line."""
        self.add("line", tip=tip, x1=x1, y1=y1, x2=x2, y2=y2, css=css, **more)

    def text(self, x: float, y: float, words: str, css: str = "label", **more: str) -> None:
        """Append text at its baseline."""
        self.add("text", text=words, x=x, y=y, css=css, **more)

    def marks(self) -> Markup:
        """Return what was drawn so far, for an element around it."""
        return Markup("".join(self._parts))

    def picture(self, **attributes: str) -> Markup:
        """Return the finished ``<svg>``; it scales with its column, up to its own width."""
        return Markup(
            '<svg role="img" viewBox="0 0 {0} {1}" style="max-width:{0}px" '
            'aria-label="{2}"{3}>{4}</svg>'
        ).format(
            _number(self.width),
            _number(self.height),
            self.title,
            Markup(_attributes(attributes)),
            self.marks(),
        )


@dataclass(frozen=True)
class Frame:
    """The plotting area of a canvas with a horizontal and a vertical scale."""

    canvas: Canvas
    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale

    def x_axis(self, ticks: Sequence[float], labels: Sequence[str], title: str) -> None:
        """Draw the horizontal axis with grid lines."""
        for value, label in zip(ticks, labels, strict=True):
            place = self.x(value)
            self.canvas.line(place, self.top, place, self.bottom, "grid")
            self.canvas.text(place, self.bottom + 15, label, "tick", text_anchor="middle")
        self.canvas.line(self.left, self.bottom, self.right, self.bottom, "axis")
        middle = (self.left + self.right) / 2
        self.canvas.text(middle, self.bottom + 33, title, "title", text_anchor="middle")

    def y_axis(self, ticks: Sequence[float], labels: Sequence[str], title: str) -> None:
        """Draw the vertical axis with grid lines."""
        for value, label in zip(ticks, labels, strict=True):
            place = self.y(value)
            self.canvas.line(self.left, place, self.right, place, "grid")
            self.canvas.text(self.left - 6, place + 4, label, "tick", text_anchor="end")
        self.canvas.text(self.left - 34, self.top - 10, title, "title")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the map of [low, high] onto [start, end]."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Return the map of [low, high], both positive, onto [start, end] by their logarithms."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round values within [low, high], about ``wanted`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten that bracket [low, high], both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def compact(value: float) -> str:
    """Return a tick label: 0.05, 1, 10k, 2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def points(pairs: Sequence[tuple[float, float]]) -> str:
    """Return coordinates as a ``points`` attribute."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def cells(*values: str | float | None) -> str:
    """Return a mark's row of the figure's table, for ``data_cells``.

    The picture names its columns in ``data_columns``, and the page saves both.
    """
    rounded = (float(f"{one:.6g}") if isinstance(one, float) else one for one in values)
    return json.dumps([None if one != one else one for one in rounded], ensure_ascii=False)


def _attributes(values: Mapping[str, str | float | None]) -> str:
    """Return attributes as they stand in a tag, their values escaped."""
    parts = []
    for name, value in values.items():
        if value is None:
            continue
        written = "class" if name == "css" else name.replace("_", "-")
        shown = escape(value) if isinstance(value, str) else _number(value)
        parts.append(f' {written}="{shown}"')
    return "".join(parts)


def _number(value: float) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")
