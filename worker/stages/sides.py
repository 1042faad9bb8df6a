"""What a mapping compares: the two resolutions and the thresholds of its payload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loopscope.numerics.features import LatentStatistics
from loopscope.numerics.gate import ChildThresholds, GateRule, GateRules, SelectionThresholds
from loopscope.numerics.mapping import ActivationColumns
from loopscope.numerics.multiple_tests import Floats
from loopscope.numerics.splits import DiscoverRows, HeldOutRows, split_rows
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.tables import read_columns, read_sparse


@dataclass(frozen=True)
class Rules:
    """The payload's thresholds, in the words of ``numerics``."""

    selection: SelectionThresholds
    child: ChildThresholds
    cosine_partial: float
    top_k: int
    rule: GateRule
    gate: GateRules
    resamples: int
    top: int
    permutations: int
    seed: int

    @staticmethod
    def of(payload: dict[str, Any]) -> Rules:
        """Read the thresholds of a mapping payload."""
        selection, gate = payload["selection"], payload["gate"]
        return Rules(
            selection=SelectionThresholds(
                selectivity_min=selection["minSelectivity"],
                firing_rate_target_min=selection["minFiringRateTarget"],
                firing_rate_neutral_max=selection["maxFiringRateNeutral"],
                q_max=selection["maxQ"],
            ),
            child=ChildThresholds(
                cosine_min=payload["minCosine"],
                correlation_min=payload["minCorrelation"],
                fine_selectivity_min=gate["minFineSelectivity"],
            ),
            cosine_partial=payload["partialCosine"],
            top_k=payload["topK"],
            rule=gate["rule"],
            gate=GateRules(
                subfeatures_min=gate["minSubfeatures"],
                null_anchors=gate["nullAnchors"],
                percentile_min=gate["minPercentile"],
                stability_min=gate["minStability"],
            ),
            resamples=gate["resamples"],
            top=selection["top"],
            permutations=payload["permutations"],
            seed=payload["seed"],
        )


@dataclass(frozen=True)
class Side:
    """One resolution: its decoder [latents, d_in], its prompt activations and statistics.

    Everything but ``held_out`` is over the discover prompts.
    """

    decoder: torch.Tensor
    rows: DiscoverRows
    held_out: HeldOutRows | None
    all_prompts: ActivationColumns
    target_prompts: ActivationColumns
    within_condition: ActivationColumns
    statistics: LatentStatistics
    text_rate: Floats
    """Share of the calibration text's tokens on which each latent fires; NaN without a text."""
    aggregation: str


def read_side(side: dict[str, Any], capture: Path, context: StageContext) -> Side:
    """Read a decomposition of ``capture`` and the decoder that it was made with."""
    folder = context.artifact("decomposition", side["digest"])
    prompts = read_columns(capture / "prompts.parquet")
    activations, _ = read_sparse(folder / "activations.safetensors")
    dictionary = context.dictionary(side["dictionary"])
    if activations.shape != (len(prompts["split"]), dictionary.d_sae):
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the decomposition is {activations.shape}, its capture and dictionary make "
            f"{(len(prompts['split']), dictionary.d_sae)}; delete the decomposition's artifact",
        )
    rows, held_out = split_rows(
        activations, prompts["condition"].astype(np.str_), prompts["split"].astype(np.str_)
    )
    features = read_columns(folder / "features.parquet")
    return Side(
        decoder=dictionary.w_dec.to(context.device),
        rows=rows,
        held_out=held_out,
        all_prompts=ActivationColumns.of(rows),
        target_prompts=ActivationColumns.within_target(rows),
        within_condition=ActivationColumns.within_condition(rows),
        statistics=LatentStatistics.of_columns(features),
        text_rate=features.get("text_rate", np.full(activations.shape[1], np.nan)),
        aggregation=str(features["aggregation"][0]),
    )
