"""The latents of a mapping that are shown, and the prompts of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from safetensors.numpy import load_file

from loopscope.numerics.gate.matching import Covariates, nearest_matched
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, FEATURES, PROMPTS
from loopscope.specs.artifacts.geometry import DECODERS
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.payloads.evidence import EvidencePayload
from loopscope.specs.payloads.references import DecompositionReference
from loopscope.specs.payloads.steering import Side
from loopscope.specs.rules import Selection
from loopscope.specs.shown_latents import LATENTS_MAX, ShownLatent, shown_latents
from loopscope.worker.context import StageContext
from loopscope.worker.stages.prompts import prompt_rows
from loopscope.worker.stages.tables import read_columns, read_document, read_sparse


@dataclass(frozen=True)
class Decomposed:
    """One side's prompts, their activations [prompts, latents] and the statistics of its latents.

    ``by_latent`` are the same activations, latent after latent.
    """

    prompts: Mapping[str, NDArray[Any]]
    activations: scipy.sparse.csr_array
    by_latent: scipy.sparse.csc_array
    features: Mapping[str, NDArray[Any]]

    @staticmethod
    def read(side: DecompositionReference, context: StageContext) -> Decomposed:
        """Read a decomposition."""
        folder = context.artifact("decomposition", side["digest"])
        activations, _ = read_sparse(folder / ACTIVATIONS.name)
        return Decomposed(
            read_columns(folder / PROMPTS.name),
            activations,
            activations.tocsc(),
            read_columns(folder / FEATURES.name),
        )

    def of(self, latent: int) -> NDArray[np.float32]:
        """Return a latent's activations [prompts]."""
        return np.asarray(self.by_latent[:, [latent]].toarray().ravel(), dtype=np.float32)

    @property
    def texts(self) -> list[str]:
        """The texts of all prompts."""
        return [str(text) for text in self.prompts["text"]]

    @property
    def ids(self) -> list[str]:
        """The names of all prompts."""
        return [str(name) for name in self.prompts["prompt_id"]]


def latents_of(
    payload: EvidencePayload, sides: Mapping[Side, Decomposed], context: StageContext
) -> list[ShownLatent]:
    """Return the latents that are shown, with a matched control of each anchor behind them."""
    mapping = context.artifact("mapping", payload["mapping"]["digest"])
    anchors = read_document(mapping, GATE)["anchors"]
    features = {name: list(column) for name, column in sides["fine"].features.items()}
    candidates = Selection.model_validate(payload["selection"]).candidates(features)
    shown = shown_latents(anchors, [int(one) for one in candidates])[:LATENTS_MAX]
    coarse = [one.latent for one in shown if one.side == "coarse"]
    geometry = context.artifact("geometry", payload["geometry"]["digest"])
    controls = _controls(coarse, sides["coarse"], geometry)
    return [*shown, *controls]


def _controls(anchors: list[int], coarse: Decomposed, geometry: Path) -> list[ShownLatent]:
    """Return for each anchor the latent that is most like it in all but the concept, once."""
    if not anchors:
        return []
    decoders = load_file(geometry / DECODERS.name)
    rows, _ = prompt_rows(coarse.activations, dict(coarse.prompts))
    covariates = Covariates.given(
        decoders["coarse_norm"].astype(np.float64),
        decoders["crowding"],
        coarse.features["text_rate"],
        rows,
    )
    found: dict[int, ShownLatent] = {}
    matched = nearest_matched(covariates, np.asarray(anchors, dtype=np.int64)).tolist()
    for anchor, latent in zip(anchors, matched, strict=False):  # empty where nothing matches
        found.setdefault(latent, ShownLatent("coarse", latent, "control", anchor))
    return list(found.values())


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt of a latent: its number, why and as which it was chosen, and its activation."""

    number: int
    chosen: Literal["top", "random"]
    rank: int
    activation: float


def shown_prompts(
    activations: NDArray[np.float32], drawn: Sequence[int], top: int, random: int
) -> list[ShownPrompt]:
    """Return the ``top`` prompts by activation [prompts], then ``random`` ones as ``drawn``.

    Only prompts on which the latent fires are among the first; the others have nothing to do with
    what a text says or a latent does, and are the same for all latents, these first ones aside.
    """
    firing = np.flatnonzero(activations > 0)
    best = firing[np.argsort(-activations[firing], kind="stable")][:top].tolist()
    firsts = set(best)
    others = [number for number in drawn if number not in firsts][:random]

    def shown(numbers: list[int], chosen: Literal["top", "random"]) -> list[ShownPrompt]:
        return [
            ShownPrompt(number, chosen, rank, float(activations[number]))
            for rank, number in enumerate(numbers)
        ]

    return [*shown(best, "top"), *shown(others, "random")]
