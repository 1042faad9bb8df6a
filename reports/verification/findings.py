"""Findings of a verification: how many values are the same, which differ, what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELATIVE, ABSOLUTE = 1e-6, 1e-12
"""Numbers that are this near to each other are the same: other processors round otherwise."""


@dataclass(frozen=True)
class Difference:
    """A value that is not what the bundle itself makes of it, and where it stands."""

    check: str
    place: str
    recorded: str
    computed: str


@dataclass
class Findings:
    """The counts of compared values by check, the differences, and what could not be computed.

    ``left_out`` maps what was not computed again to the reason. ``answers`` say what came of what
    was registered, ``deviations`` what was done otherwise; ``ended`` how a steering that might stop
    early came to its end; ``owner`` of which sweep or study the experiment is one.
    """

    compared: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    deviations: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    ended: str = ""
    owner: str = ""

    def same(self, check: str, place: str, recorded: Any, computed: Any) -> None:
        """Compare a value, or a document with all that is in it."""
        if isinstance(computed, Mapping) and isinstance(recorded, Mapping):
            for key in sorted({*recorded, *computed}, key=str):
                inner = f"{place}.{key}"
                if key in recorded and key in computed:
                    self.same(check, inner, recorded[key], computed[key])
                else:
                    self.differs(check, inner, recorded.get(key, "-"), computed.get(key, "-"))
        elif _is_list(computed) and _is_list(recorded):
            if len(computed) != len(recorded):
                self.differs(check, f"{place}, length", len(recorded), len(computed))
            for number, (one, other) in enumerate(zip(recorded, computed, strict=False)):
                self.same(check, f"{place}[{number}]", one, other)
        else:
            self.compared[check] = self.compared.get(check, 0) + 1
            if not is_same(recorded, computed):
                self._differ(check, place, recorded, computed)

    def column(
        self, check: str, place: str, recorded: Sequence[Any] | NDArray[Any], computed: NDArray[Any]
    ) -> None:
        """Compare a column of a table; each row that differs is named by its number."""
        found = np.asarray(recorded)
        if found.shape != computed.shape:
            self.differs(check, f"{place}, rows", len(found), len(computed))
            return
        self.compared[check] = self.compared.get(check, 0) + found.size
        for row in np.flatnonzero(~_agree(found, computed)):
            self._differ(check, f"{place}[{row}]", found.flat[row], computed.flat[row])

    def differs(self, check: str, place: str, recorded: object, computed: object) -> None:
        """Record a difference that is none between two values of one kind."""
        self.compared[check] = self.compared.get(check, 0) + 1
        self._differ(check, place, recorded, computed)

    def leave_out(self, what: str, why: str) -> None:
        """Name what was not computed again."""
        self.left_out[what] = why

    def deviate(self, words: str) -> None:
        """Name what was done otherwise than it was registered."""
        self.deviations.append(words)

    def answer(self, words: str) -> None:
        """Say what came of what was registered."""
        self.answers.append(words)

    @contextmanager
    def part(self, check: str, place: str) -> Iterator[None]:
        """Take whatever goes wrong inside as a difference: an edited bundle may break anything."""
        try:
            yield
        except Exception as error:
            self.differs(
                check, place, "cannot be computed again", f"{type(error).__name__}: {error}"
            )

    def _differ(self, check: str, place: str, recorded: object, computed: object) -> None:
        self.differences.append(Difference(check, place, _shown(recorded), _shown(computed)))


def is_same(recorded: Any, computed: Any) -> bool:
    """Return whether two values are the same: numbers within rounding, unknown as unknown."""
    if _is_unknown(recorded) or _is_unknown(computed):
        return _is_unknown(recorded) and _is_unknown(computed)
    if isinstance(recorded, bool | np.bool_ | str) or isinstance(computed, bool | np.bool_ | str):
        return type(_plain(recorded)) is type(_plain(computed)) and bool(recorded == computed)
    try:
        return math.isclose(recorded, computed, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except TypeError:
        return False


def _agree(recorded: NDArray[Any], computed: NDArray[Any]) -> NDArray[np.bool_]:
    if recorded.dtype.kind in "fiu" and computed.dtype.kind in "fiu":
        return np.isclose(
            recorded.astype(np.float64),
            computed.astype(np.float64),
            rtol=RELATIVE,
            atol=ABSOLUTE,
            equal_nan=True,
        ).ravel()
    pairs = zip(recorded.ravel().tolist(), computed.ravel().tolist(), strict=True)
    return np.array([is_same(one, other) for one, other in pairs], dtype=np.bool_)


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _shown(value: object) -> str:
    return "unknown" if _is_unknown(value) else str(_plain(value))[:200]
