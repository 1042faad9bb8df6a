"""What a mapping compares: the two resolutions and the thresholds of its payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from numerics.features import LatentStatistics
from numerics.gate import ChildThresholds, GateRule, SelectionThresholds
from numerics.mapping import ActivationColumns
from state.failures import TerminalFailure
from worker.context import StageContext
from worker.stages.tables import read_columns, read_sparse


@dataclass(frozen=True)
class Rules:
    """The payload's thresholds, in the words of ``numerics``."""

    selection: SelectionThresholds
    child: ChildThresholds
    cosine_partial: float
    top_k: int
    rule: GateRule
    subfeatures_min: int

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
            subfeatures_min=gate["minSubfeatures"],
        )


@dataclass(frozen=True)
class Side:
    """One resolution: its decoder [latents, d_in], prompt activations and statistics."""

    decoder: torch.Tensor
    all_prompts: ActivationColumns
    target_prompts: ActivationColumns
    statistics: LatentStatistics


def read_side(side: dict[str, Any], is_target: NDArray[np.bool_], context: StageContext) -> Side:
    """Read a decomposition and the decoder that it was made with."""
    folder = context.artifact("decomposition", side["digest"])
    activations, _ = read_sparse(folder / "activations.safetensors")
    dictionary = context.dictionary(side["dictionary"])
    if activations.shape != (len(is_target), dictionary.d_sae):
        raise TerminalFailure(
            "DictionaryMismatch",
            f"the decomposition is {activations.shape}, its capture and dictionary make "
            f"{(len(is_target), dictionary.d_sae)}; delete the decomposition's artifact",
        )
    features = read_columns(folder / "features.parquet")
    features.pop("latent")
    return Side(
        decoder=dictionary.w_dec.to(context.device),
        all_prompts=ActivationColumns.of(activations),
        target_prompts=ActivationColumns.of(activations[is_target]),
        statistics=LatentStatistics(**features),
    )
