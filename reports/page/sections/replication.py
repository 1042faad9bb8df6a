"""The section *Replication* of a sweep that tries an experiment again."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.views.replication.axes import COLUMNS, Replicated
from loopscope.views.replication.pairs import COLUMNS as PAIR_COLUMNS
from loopscope.views.replication.pairs import Pairs
from loopscope.views.replication.replication import replication_sentences


@dataclass(frozen=True)
class ReplicationSection:
    """A sentence an axis, a row a value, and what is known of each value that parted."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    details: tuple[tuple[str, tuple[str, ...]], ...]
    pair_columns: tuple[str, ...]
    pairs: tuple[tuple[str, ...], ...]


def replication_section(found: Replicated, pairs: Pairs) -> ReplicationSection:
    """Return the section of an experiment that was tried again."""
    return ReplicationSection(
        found.name,
        COLUMNS,
        tuple(one.cells for one in found.tried),
        (*(found.sentence(axis) for axis in found.axes), f"batch: {found.alone}."),
        tuple(
            (f"{one.axis} {one.value}", tuple(replication_sentences(one.found)))
            for one in found.tried
            if one.found is not None and one.found.parted is not None
        ),
        PAIR_COLUMNS,
        tuple(line.cells for line in pairs.lines),
    )
