"""The two sides of a mapping, and the thresholds of its payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loopscope.numerics.gate.rule import ChildThresholds, GateRule, GateRules, SelectionThresholds
from loopscope.numerics.latents.features import LatentStatistics
from loopscope.numerics.latents.mapping import ActivationColumns
from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows
from loopscope.numerics.statistics.multiple_tests import Floats
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, FEATURES, PROMPTS
from loopscope.specs.payloads.mapping import MappingPayload
from loopscope.specs.payloads.references import DecompositionReference
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.prompts import prompt_rows
from loopscope.worker.stages.tables import read_columns, read_sparse

OTHER_Q = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0)
"""Values of maxQ that are asked for beside the declared one; 1 asks for no test."""


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
    sensitivity: bool

    @property
    def other_q(self) -> tuple[float, ...]:
        """Return the values of maxQ that are asked for beside the declared one."""
        own = self.selection.q_max
        return tuple(q for q in OTHER_Q if q != own) if self.sensitivity else ()

    @staticmethod
    def of(payload: MappingPayload) -> Rules:
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
            sensitivity=gate.get("sensitivity", False),
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
    release: Callable[[], None]
    """Gives back what was read of the decoder's file."""
    last_token: NDArray[np.str_] | None
    """Each discover prompt's, where activations are those of the last token and it is known."""


def read_side(side: DecompositionReference, context: StageContext) -> Side:
    """Read a decomposition and the decoder that it was made with."""
    folder = context.artifact("decomposition", side["digest"])
    prompts = read_columns(folder / PROMPTS.name)
    activations, _ = read_sparse(folder / ACTIVATIONS.name)
    dictionary = context.dictionary(side["dictionary"])
    if activations.shape != (len(prompts["split"]), dictionary.d_sae):
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the decomposition is {activations.shape}, its prompts and dictionary make "
            f"{(len(prompts['split']), dictionary.d_sae)}; delete the decomposition's artifact",
        )
    rows, held_out = prompt_rows(activations, prompts)
    features = read_columns(folder / FEATURES.name)
    return Side(
        decoder=dictionary.w_dec.to(context.device),
        release=dictionary.release,
        rows=rows,
        held_out=held_out,
        all_prompts=ActivationColumns.of(rows),
        target_prompts=ActivationColumns.within_target(rows),
        within_condition=ActivationColumns.within_condition(rows),
        statistics=LatentStatistics.of_columns(features),
        text_rate=features["text_rate"],
        aggregation=str(features["aggregation"][0]),
        last_token=_last_token(prompts, str(features["aggregation"][0])),
    )


def _last_token(prompts: dict[str, NDArray[Any]], aggregation: str) -> NDArray[np.str_] | None:
    if aggregation != "last" or "last_token" not in prompts:
        return None
    chosen = (prompts["split"] == "discover") & (prompts["condition"] != "hard-negative")
    return np.asarray(prompts["last_token"][chosen], dtype=np.str_)
