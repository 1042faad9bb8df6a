"""The effect of a quantised model on a dictionary: its FVU with and without, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.records import ObjectRecord

_SAME = ("hook", "writeHook", "calibrationText", "maxTokens")
"""What two captures of the calibration text have in common for their FVUs to be compared."""


@dataclass(frozen=True)
class Quantisation:
    """A dictionary on the calibration text of a quantised model, and on that of the unquantised.

    ``fvu`` is its fraction of variance unexplained where the model's linear layers are ``kind``;
    ``without`` the same of the unquantised model, by the decomposition that measured it, None
    where there is none.
    """

    object: Key
    kind: str
    fvu: float
    without: tuple[Key, float] | None

    @property
    def words(self) -> str:
        """One sentence with both numbers, or with how to get the second."""
        said = f"FVU {self.fvu:.4g} on the calibration text, weights {self.kind}"
        if self.without is None:
            return f"{said}; unquantised not measured: apply the same without quantised as well"
        key, before = self.without
        return f"{said}; {before:.4g} unquantised ({key}): {self.fvu - before:+.4g}"


def quantisations(
    connection: Connection, records: Iterable[ObjectRecord | None]
) -> tuple[Quantisation, ...]:
    """Return one for each Decomposition among ``records`` whose model is quantised when loaded."""
    found = []
    for record in records:
        if record is None or record.key.kind != "Decomposition":
            continue
        capture = _capture_of(connection, record)
        model = _model(capture)
        fvu = record.status.summary.get("text_fvu")
        if capture is None or fvu is None or "unquantised" not in model:
            continue
        without = _without(connection, record, capture, str(model["unquantised"]))
        found.append(Quantisation(record.key, str(model["quantised"]), float(fvu), without))
    return tuple(found)


def _without(
    connection: Connection, record: ObjectRecord, capture: ObjectRecord, identity: str
) -> tuple[Key, float] | None:
    """Return the decomposition of the unquantised model that measured the same dictionary."""
    for other in objects.listed(connection, "Decomposition"):
        fvu = other.status.summary.get("text_fvu")
        if fvu is None or not other.ready or _dictionary(other) != _dictionary(record):
            continue
        taken = _capture_of(connection, other)
        if taken is None or _model(taken).get("identity") != identity:
            continue
        if all(taken.spec.get(name) == capture.spec.get(name) for name in _SAME):
            return other.key, float(fvu)
    return None


def _capture_of(connection: Connection, record: ObjectRecord) -> ObjectRecord | None:
    name = record.status.inputs.get("capture", {}).get("object")
    if name is None:
        return None
    return objects.get(connection, Key("Capture", record.key.namespace, str(name)))


def _model(capture: ObjectRecord | None) -> Mapping[str, Any]:
    facts = capture.status.inputs.get("model", {}) if capture is not None else {}
    found: Mapping[str, Any] = facts.get("ref", {})
    return found


def _dictionary(record: ObjectRecord) -> str | None:
    found: str | None = record.status.inputs.get("dictionary", {}).get("ref", {}).get("identity")
    return found
