"""The candidates once more, on prompts that chose nothing: ``features_test.parquet``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from loopscope.numerics.gate.rule import selective_latents
from loopscope.numerics.latents.features import LatentStatistics, held_out_statistics
from loopscope.numerics.latents.mapping import Indices
from loopscope.specs.artifacts.mapping import FEATURES_TEST
from loopscope.specs.rules import Selection
from loopscope.specs.spec_json import SelectionJson
from loopscope.worker.stages.mapping.sides import Rules, Side
from loopscope.worker.stages.tables import write_table

NO_TEST_SPLIT = "not confirmed: no test split"


@dataclass(frozen=True)
class Confirmation:
    """Which candidates pass the selection again; ``confirmed`` is None without test prompts."""

    confirmed: NDArray[np.bool_] | None
    sentence: str


def confirm(
    coarse: Side, fine: Side, candidates: Indices, children: Indices, rules: Rules, out: Path
) -> Confirmation:
    """Apply the selection to the candidates on the test prompts, and write the table.

    The rule is the declared one, with one-sided tests and Holm's correction over the candidates
    in the place of q. Children are described, not judged: geometry chose them.
    """
    if coarse.held_out is None or fine.held_out is None:
        return Confirmation(None, NO_TEST_SPLIT)
    statistics = held_out_statistics(coarse.held_out.latents(candidates))
    confirmed = selective_latents(statistics, rules.selection)
    below = held_out_statistics(fine.held_out.latents(children))
    verdicts = [*confirmed.tolist(), *[None] * len(children)]
    described = [_columns(statistics), _columns(below)]
    write_table(
        out,
        FEATURES_TEST,
        {
            "side": np.repeat(["coarse", "fine"], [len(candidates), len(children)]),
            "latent": np.concatenate([candidates, children]),
            "aggregation": np.full(len(verdicts), coarse.aggregation),
            **{name: np.concatenate([part[name] for part in described]) for name in described[0]},
            "confirmed": pyarrow.array(verdicts, pyarrow.bool_()),
        },
    )
    target = int(coarse.held_out.is_target.sum())
    return Confirmation(
        confirmed,
        f"{int(confirmed.sum())} of {len(candidates)} candidates pass the selection again on "
        f"{target} target and {coarse.held_out.prompts - target} neutral test prompts",
    )


def hard_negative_cautions(
    statistics: LatentStatistics, candidates: Indices, selection: SelectionJson
) -> list[str | None]:
    """Return for each candidate the evidence of the discover split's hard negatives against it."""
    declared, columns = Selection.model_validate(selection), statistics.columns()
    return [
        declared.caution({name: float(values[latent]) for name, values in columns.items()})
        for latent in candidates
    ]


def _columns(statistics: LatentStatistics) -> dict[str, NDArray[Any]]:
    columns = statistics.columns()
    columns["p_holm"] = columns.pop("q_value")
    return columns
