"""The tables of a steering and further outcomes of its texts, by arm, strength, opening, sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.specs.artifacts.scores import TEXT_KEYS
from loopscope.specs.artifacts.steering import NEUTRAL_TEXT, SCORES
from loopscope.specs.payloads.steering import Opening
from loopscope.worker.stages.tables import read_columns

Floats = NDArray[np.float64]
NOT_OUTCOMES = (*(column.name for column in TEXT_KEYS), "kl", "perplexity")


@dataclass(frozen=True)
class Places:
    """Where each row of a table of texts stands among cells, openings and samples."""

    cells: list[tuple[str, float]]
    openings: list[Opening]
    samples: int

    @staticmethod
    def of(scores: Mapping[str, NDArray[np.generic]], openings: Sequence[Opening]) -> Places:
        """Return the places of the texts of ``steering_scores.parquet``."""
        named = zip(scores["arm"].tolist(), scores["strength"].tolist(), strict=True)
        cells = dict.fromkeys((str(arm), float(strength)) for arm, strength in named)
        return Places([*cells], list(openings), int(scores["sample"].max()) + 1)

    def filled(
        self, table: Mapping[str, NDArray[np.generic]], values: NDArray[np.generic]
    ) -> Floats:
        """Return a column as [cells, openings, samples]. Raises KeyError for a foreign text."""
        number = {cell: place for place, cell in enumerate(self.cells)}
        opening = {one["id"]: place for place, one in enumerate(self.openings)}
        found = np.full((len(self.cells), len(self.openings), self.samples), np.nan)
        rows = zip(*(table[column.name].tolist() for column in TEXT_KEYS), strict=True)
        for (prompt_id, arm, strength, sample), value in zip(rows, values.tolist(), strict=True):
            found[number[str(arm), float(strength)], opening[prompt_id], sample] = value
        return found


def cells_of(
    steered: Path,
    openings: Sequence[Opening],
    further: Sequence[Path],
    turns: Sequence[int] | None = None,
) -> ScoredCells:
    """Return what a steering scored of each cell, with the columns of further outcomes.

    ``turns`` are the places of the openings in the order of the looks, None without looks.
    """
    scores = read_columns(steered / SCORES.name)
    places = Places.of(scores, openings)
    outcomes = {
        name: places.filled(scores, values)
        for name, values in scores.items()
        if name not in NOT_OUTCOMES
    }
    outcomes["log_perplexity"] = np.log(places.filled(scores, scores["perplexity"]))
    for path in further:
        table = read_columns(path)
        for name in dict.fromkeys(table["outcome"].tolist()):
            rows = table["outcome"] == name
            own = {column: values[rows] for column, values in table.items()}
            outcomes[str(name)] = places.filled(own, own["value"])
    kl, budget = _effects(steered / NEUTRAL_TEXT.name, places)
    groups = [opening.get("group") for opening in openings]
    group = None if None in groups else np.array(groups, dtype=np.int64)
    turn = None if turns is None else np.array(turns, dtype=np.int64)
    return ScoredCells(places.cells, outcomes, kl, budget, group, turn)


def _effects(path: Path, places: Places) -> tuple[Floats, Floats | None]:
    """Return KL and budget [cells, texts]; none where an earlier version did not write them."""
    if not path.exists():
        return np.zeros((len(places.cells), 1)), None
    table = read_columns(path)
    rows = [
        (table["arm"] == arm) & (table["strength"] == strength) for arm, strength in places.cells
    ]
    kl, budget = (
        np.stack([table[name][own].astype(np.float64) for own in rows]) for name in ("kl", "budget")
    )
    return kl, None if np.isnan(budget).all() else budget
