"""Arms of a blinded steering under letters: all that is shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from pyarrow import parquet

from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.blinding import BLINDED, Blinding, letters_of
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, reading
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import count, interval, percent

HEAD = ["arm", "texts", "concept", "interval"]
_COLUMNS = ("arm", "n", "concept_rate", "concept_low", "concept_high")


@dataclass(frozen=True)
class LetterRow:
    """One arm at one strength: its letter, its texts, its share of hits and the 95 % interval."""

    letter: str
    texts: int
    rate: float
    low: float
    high: float


def blinded_arms(record: ObjectRecord | None, store: ArtifactStore) -> list[LetterRow]:
    """Return the arms of a steering that is blinded, in the order of their letters; else none.

    Strengths are left out, and rows of one letter are ordered by their rate. Raises Corrupt.
    """
    found = None if record is None else cast("Blinding | None", record.status.summary.get(BLINDED))
    if found is None:
        return []
    made = store.record("steering", found["digest"])
    with reading(ARMS.name):
        table = parquet.read_table(store.fetch_file(made, ARMS.name), columns=list(_COLUMNS))
    if table.num_rows == 0:
        raise Corrupt(f"{ARMS.name} of {made.digest} is empty")
    letters = letters_of(found["registration"], table["arm"].to_pylist())
    rows = [
        LetterRow(letters[arm], *rest)
        for arm, *rest in zip(*table.to_pydict().values(), strict=True)
    ]
    return sorted(rows, key=lambda row: (len(row.letter), row.letter, row.rate))


def letter_rows(rows: Sequence[LetterRow]) -> Iterator[list[str]]:
    """Yield the rows in words, under ``HEAD``."""
    for row in rows:
        yield [row.letter, count(row.texts), percent(row.rate), interval(row.low, row.high)]
