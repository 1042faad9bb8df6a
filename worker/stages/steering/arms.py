"""The arms of a steering run: the mapping's directions, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.sampling import random_direction
from loopscope.numerics.steering.directions import summed_direction
from loopscope.specs.artifacts.capture import RESIDUAL
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.artifacts.gate import Directions
from loopscope.specs.artifacts.mapping import DIRECTIONS, DIRECTIONS_VECTORS
from loopscope.specs.artifacts.verdict import SteeredAnchor
from loopscope.specs.payloads.steering import Side, SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.capture.written import written_rows
from loopscope.worker.stages.prompts import read_prompts
from loopscope.worker.stages.tables import read_columns, read_document

SYSTEM_PROMPT = "systemPrompt"
PLACEBO_PROMPT = "placeboPrompt"
PRIMARY = ("coarse", "fine", "multi")
CONCEPT_Q_MAX = 0.05


@dataclass(frozen=True)
class Arms:
    """The unit vector of each arm, float32 [width of the hook], and why others are missing.

    ``none`` and arms of words have no vector. ``latents`` names the latents behind an arm,
    as ``{"coarse": [...], "fine": [...]}``; ``targets`` are all anchors, the steered
    one first, and all of their children; ``anchor`` is the steered one.
    """

    vectors: dict[str, Tensor]
    missing: dict[str, str] = field(default_factory=dict)
    latents: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    targets: dict[str, list[int]] = field(default_factory=dict)
    anchor: SteeredAnchor | None = None

    def cosines(self) -> dict[str, float]:
        """Return the cosine of each pair of arms that have a vector, random draws left out."""
        names = [name for name in self.vectors if not name.startswith("random-")]
        return {
            f"{a}~{b}": float(self.vectors[a].double() @ self.vectors[b].double())
            for place, a in enumerate(names)
            for b in names[place + 1 :]
        }


def build_arms(payload: SteeringPayload, context: StageContext, width: int) -> Arms:
    """Read the mapping's directions and make the controls that the payload asks for.

    Raises TerminalFailure ``ShapeMismatch`` when a direction is not as wide as the hook.
    """
    mapping = context.artifact("mapping", payload["mapping"]["digest"])
    path = mapping / DIRECTIONS_VECTORS.name
    directions = load_file(path) if path.exists() else {}
    found = read_document(mapping, DIRECTIONS)
    arms = Arms(
        {},
        targets={"coarse": found["anchors"], "fine": found["children_of_all"]},
        anchor=_steered_anchor(found),
    )
    for name in payload["arms"]:
        if name == "random":
            for draw in range(payload["randomDraws"]):
                seed = payload["sampling"]["seed"]
                arms.vectors[f"random-{draw}"] = random_direction(seed, draw, width)
        elif name in PRIMARY:
            _add(arms, name, directions.get(name), found.get("missing", {}).get(name))
        elif name != "none":
            vector, latents, why = _CONTROLS[name](payload, context, found)
            _add(arms, name, vector, why)
            if vector is not None and latents:
                arms.latents[name] = latents
    arms.latents.update(_latents_of_primary(found, arms))
    for name, vector in arms.vectors.items():
        if tuple(vector.shape) != (width,):
            raise TerminalFailure(
                "ShapeMismatch", f"direction {name} is {tuple(vector.shape)}, the hook {width}"
            )
    return arms


def _steered_anchor(found: Directions) -> SteeredAnchor | None:
    if found["anchor"] is None:
        return None
    return {"latent": found["anchor"], "children": len(found["children"])}


def _add(arms: Arms, name: str, vector: Tensor | None, why: str | None) -> None:
    if vector is None:
        arms.missing[name] = why or "the mapping holds no such direction"
    else:
        arms.vectors[name] = vector.float()


def _latents_of_primary(found: Directions, arms: Arms) -> dict[str, dict[str, list[int]]]:
    coarse = [] if found["anchor"] is None else [found["anchor"]]
    fine = found["children"]
    parts: dict[str, dict[str, list[int]]] = {
        "coarse": {"coarse": coarse, "fine": []},
        "fine": {"coarse": [], "fine": fine},
        "multi": {"coarse": coarse, "fine": fine},
    }
    return {name: latents for name, latents in parts.items() if name in arms.vectors}


Built = tuple[Tensor | None, dict[str, list[int]], str | None]


def _coarse_pair(payload: SteeringPayload, context: StageContext, found: Directions) -> Built:
    """The steered anchor and the next: as many sources as multi has, at one resolution."""
    pair = found["anchors"][:2]
    if len(pair) < 2:
        return None, {}, "there is only one anchor"
    decoder = context.dictionary(payload["coarse"]["dictionary"]).w_dec
    vector = summed_direction(decoder[pair].cpu())
    return vector, {"coarse": pair, "fine": []}, "the two decoder rows cancel"


def _non_children(payload: SteeringPayload, context: StageContext, found: Directions) -> Built:
    """As many fine latents as the anchor has children, none of them any anchor's child.

    Each fires about as often as a child, and none answers to the concept.
    """
    children = found["children"]
    if not children:
        return None, {}, "the anchor has no children to be matched"
    drawn = _drawn(payload, context, "fine", children, found["children_of_all"])
    if not drawn:
        return None, {}, "no other fine latent fires without answering to the concept"
    decoder = context.dictionary(payload["fine"]["dictionary"]).w_dec
    vector = summed_direction(decoder[drawn].cpu())
    return vector, {"coarse": [], "fine": drawn}, "their decoder rows cancel"


def _drawn(
    payload: SteeringPayload,
    context: StageContext,
    side: Side,
    wanted: list[int],
    targets: list[int],
) -> list[int]:
    """Return for each of ``wanted`` a latent of the side that fires alike and is not a target.

    Latents that answer to the concept (more active on target, q at most 0.05) are left out: a
    control made of them would be one more arm of the concept.
    """
    folder = context.artifact("decomposition", payload[side]["digest"])
    features = read_columns(folder / FEATURES.name)
    concept = (features["q_value"] <= CONCEPT_Q_MAX) & (features["selectivity"] > 0)
    excluded = [*targets, *np.flatnonzero(concept).tolist()]
    return matched_latents(features["n_firing"], wanted, excluded, payload["sampling"]["seed"])


def matched_latents(
    firing: NDArray[np.integer], wanted: list[int], excluded: list[int], seed: int
) -> list[int]:
    """Return one living latent for each of ``wanted``, alike in ``firing``, none twice or excluded.

    Each is drawn among the twenty whose number of firing prompts is closest.
    """
    generator = keyed_generator("matched latents", seed)
    free = firing > 0
    free[excluded] = False
    free[wanted] = False
    drawn = []
    for latent in wanted:
        pool = np.flatnonzero(free)
        distance = np.abs(firing[pool] - firing[latent])
        nearest = pool[np.lexsort((pool, distance))[:20]]
        if not nearest.size:
            break
        chosen = int(nearest[generator.integers(0, nearest.size)])
        free[chosen] = False
        drawn.append(chosen)
    return drawn


def _random_latent(payload: SteeringPayload, context: StageContext, found: Directions) -> Built:
    """One coarse decoder row that fires about as often as the anchor and is none."""
    if found["anchor"] is None:
        return None, {}, "there is no anchor to be matched"
    drawn = _drawn(payload, context, "coarse", [found["anchor"]], found["anchors"])
    if not drawn:
        return None, {}, "no other coarse latent fires without answering to the concept"
    decoder = context.dictionary(payload["coarse"]["dictionary"]).w_dec
    vector = summed_direction(decoder[drawn].cpu())
    return vector, {"coarse": drawn, "fine": []}, f"decoder row {drawn[0]} is zero"


def _mean_difference(payload: SteeringPayload, context: StageContext, _found: Directions) -> Built:
    """Mean target minus mean neutral over captured rows of the discover split, where it acts."""
    folder = context.artifact("capture", payload["capture"]["digest"])
    tensors = load_file(folder / RESIDUAL.name)
    stream = written_rows(folder, "residual", tensors["residual"])
    prompts = read_prompts(payload["coarse"], context)
    chosen = prompts["split"] == "discover"
    rows = tensors["prompt_index"].numpy()
    means = []
    for condition in ("target", "neutral"):
        wanted = (chosen & (prompts["condition"] == condition))[rows]
        means.append(stream[torch.from_numpy(wanted)].double().mean(dim=0))
    return summed_direction((means[0] - means[1])[None]), {}, "the two means are equal"


_CONTROLS = {
    "coarsePair": _coarse_pair,
    "nonChildren": _non_children,
    "randomLatent": _random_latent,
    "meanDifference": _mean_difference,
}
