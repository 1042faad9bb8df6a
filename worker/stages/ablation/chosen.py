"""Latents that are taken out: the anchor, its children, both, and matched ones in their places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from loopscope.numerics.latents.alike import drawn_alike, log_positive, standardised
from loopscope.specs.artifacts.geometry import DECODERS
from loopscope.specs.artifacts.mapping import DIRECTIONS
from loopscope.specs.payloads.ablation import CONTROLS, AblationPayload, Control, Part
from loopscope.specs.payloads.steering import SIDES, Side
from loopscope.worker.context import StageContext
from loopscope.worker.stages.evidence.chosen import Decomposed
from loopscope.worker.stages.steering.arms import CONCEPT_Q_MAX
from loopscope.worker.stages.tables import read_document

Latents = dict[Side, list[int]]


@dataclass(frozen=True)
class Cut:
    """Latents that are taken out together; ``stands_for`` are those that they are matched to."""

    part: Part
    control: Control | None
    draw: int
    latents: Latents
    stands_for: Latents


def cuts_of(payload: AblationPayload, context: StageContext) -> list[Cut]:
    """Return what is taken out, the concept's own latents first.

    A control whose latents cannot be matched is left out.
    """
    mapping = context.artifact("mapping", payload["mapping"]["digest"])
    found = read_document(mapping, DIRECTIONS)
    assert found["anchor"] is not None  # without one nothing is asked of this stage
    own: Latents = {"coarse": [found["anchor"]], "fine": list(found["children"])}
    targets: Latents = {"coarse": list(found["anchors"]), "fine": list(found["children_of_all"])}
    cuts = [Cut(part, None, 0, latents, latents) for part, latents in _parts(own)]
    norms = load_file(context.artifact("geometry", payload["geometry"]["digest"]) / DECODERS.name)
    for control in CONTROLS:
        drawn = {
            side: _drawn(payload, context, side, control, own[side], targets[side], norms)
            for side in SIDES
        }
        for draw in range(payload["draws"]):
            if any(draw >= len(drawn[side]) for side in SIDES if own[side]):
                continue
            matched: Latents = {side: drawn[side][draw] if own[side] else [] for side in SIDES}
            cuts += [
                Cut(part, control, draw, latents, dict(_parts(own))[part])
                for part, latents in _parts(matched)
            ]
    return cuts


def _parts(latents: Latents) -> list[tuple[Part, Latents]]:
    parts: list[tuple[Part, Latents]] = [("anchor", {"coarse": latents["coarse"], "fine": []})]
    if latents["fine"]:
        parts += [("children", {"coarse": [], "fine": latents["fine"]}), ("both", latents)]
    return parts


def _drawn(
    payload: AblationPayload,
    context: StageContext,
    side: Side,
    control: Control,
    own: list[int],
    targets: list[int],
    norms: dict[str, NDArray[np.floating]],
) -> list[list[int]]:
    """Return sets of latents in the places of ``own``; none of them answers to the concept."""
    if not own:
        return []
    decomposed = Decomposed.read(payload[side], context)
    features = decomposed.features
    rate = np.asarray(features["text_rate"], dtype=np.float64)
    norm = np.asarray(norms[f"{side}_norm"], dtype=np.float64)
    living = (features["n_firing"] > 0) | (np.nan_to_num(rate) > 0)
    concept = (features["q_value"] <= CONCEPT_Q_MAX) & (features["selectivity"] > 0)
    eligible = living & ~concept
    eligible[targets] = False
    eligible[own] = False
    if control == "alikeInText":
        if not np.isfinite(rate).all():
            return []
        columns = [log_positive(rate), norm]
        if side == "coarse":
            columns.append(np.asarray(norms["crowding"], dtype=np.float64))
    else:
        columns = _on_prompts(decomposed, norm)
    near = standardised(columns, living)
    key = (payload["seed"], side, control)
    return drawn_alike(near, eligible, own, payload["draws"], *key)


def _on_prompts(decomposed: Decomposed, norm: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return what latents do on target prompts: how often they fire, how much they write there."""
    target = np.flatnonzero(decomposed.prompts["condition"] == "target")
    rows = decomposed.activations[target]
    firing = np.asarray((rows > 0).mean(axis=0), dtype=np.float64).ravel()
    mean = np.asarray(rows.mean(axis=0), dtype=np.float64).ravel()
    return [firing, log_positive(mean * norm)]
