"""The section on what the shown latents fire on: top prompts, others, and relatives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from markupsafe import Markup
from numpy.typing import NDArray

from loopscope.reports.page.figures.density import density
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, PROMPTS
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE, PAIRS
from loopscope.specs.payloads.steering import Side
from loopscope.views.activations import prompt_activations
from loopscope.views.experiment import ExperimentView

LATENTS_MAX = 40
TOP_PROMPTS = 8
OTHER_PROMPTS = 4
RELATIVES_MAX = 8


@dataclass(frozen=True)
class Fired:
    """A prompt on which a latent fires; ``share`` is of its largest activation."""

    text: str
    condition: str
    activation: float
    share: float


@dataclass(frozen=True)
class Relative:
    """A latent of the other dictionary that the mapping kept beside this one."""

    side: Side
    latent: int
    cosine: float
    correlation: float
    reading: str
    child: bool


@dataclass(frozen=True)
class Latent:
    """One latent: ``place`` is its permalink, ``fires`` how many prompts of each condition."""

    side: Side
    latent: int
    role: str
    top: list[Fired]
    others: list[Fired]
    fires: list[tuple[str, int, int]]
    density: Markup
    relatives: list[Relative]
    relatives_hidden: int

    @property
    def name(self) -> str:
        """How figures and tables call it."""
        return f"{'C' if self.side == 'coarse' else 'F'}-{self.latent}"

    @property
    def place(self) -> str:
        """Its permalink, without the sign."""
        return f"latent={self.side}/{self.latent}"


@dataclass(frozen=True)
class Latents:
    """What the shown latents fire on; ``hidden`` further ones are in the tables alone."""

    problem: str
    aggregation: str
    shown: list[Latent]
    hidden: int
    both: list[tuple[int, int, list[str]]]
    """Coarse and fine latent of a kept pair, and prompts on which both fire, strongest first."""

    @property
    def places(self) -> set[tuple[str, int]]:
        """Side and latent of those that have a place in the page."""
        return {(one.side, one.latent) for one in self.shown}


def latents(view: ExperimentView) -> Latents:
    """Return what anchors, their children and the fine candidates fire on, in that order."""
    stages = [view.stage(name) for name in ("coarse", "fine", "mapping")]
    problem = next((stage.problem for stage in stages if not stage.available), "")
    aggregation = str(view.experiment.spec["aggregation"])
    if problem:
        return Latents(problem, aggregation, [], 0, [])
    gate, pairs = view.stage("mapping").document(GATE), view.stage("mapping").table(PAIRS)
    wanted = _wanted(view, gate)
    shown = wanted[:LATENTS_MAX]
    prompts = view.prompts.table(PROMPTS)
    activations: dict[Side, dict[int, NDArray[np.float32]]] = {
        side: prompt_activations(
            view.stage(side).path(ACTIVATIONS.name),
            {latent for place, latent, _ in shown if place == side}
            | set(pairs["coarse" if side == "coarse" else "fine"].tolist()),
        )
        for side in ("coarse", "fine")
    }
    return Latents(
        "",
        aggregation,
        [_latent(*one, activations[one[0]][one[1]], prompts, pairs) for one in shown],
        len(wanted) - len(shown),
        _both(pairs, activations["coarse"], activations["fine"], prompts["text"].tolist()),
    )


def _wanted(view: ExperimentView, gate: Gate) -> list[tuple[Side, int, str]]:
    """Return side, latent and role, each latent once, under its first role."""
    found: dict[tuple[Side, int], str] = {}
    for entry in gate["anchors"]:
        role = "anchor, steered" if entry["steered"] else "anchor"
        found.setdefault(("coarse", entry["coarse"]), role)
    for entry in gate["anchors"]:
        for child in entry["children"]:
            found.setdefault(("fine", child), f"child of C-{entry['coarse']}")
    for latent in view.candidates("fine"):
        found.setdefault(("fine", latent), "fine candidate")
    return [(side, latent, role) for (side, latent), role in found.items()]


def _latent(
    side: Side,
    latent: int,
    role: str,
    activations: NDArray[np.float32],
    prompts: pandas.DataFrame,
    pairs: pandas.DataFrame,
) -> Latent:
    texts, conditions = prompts["text"].tolist(), prompts["condition"].tolist()
    largest = float(activations.max(initial=0.0))
    firing = np.flatnonzero(activations > 0)
    order = firing[np.argsort(-activations[firing], kind="stable")]

    def fired(rows: Sequence[int]) -> list[Fired]:
        return [
            Fired(texts[row], conditions[row], float(activations[row]), activations[row] / largest)
            for row in rows
        ]

    rest = sorted(order[TOP_PROMPTS:].tolist(), key=lambda row: _drawn(texts[row]))
    names = list(dict.fromkeys(conditions))
    by_condition = {name: activations[np.array(conditions) == name] for name in names}
    relatives = _relatives(side, latent, pairs)
    return Latent(
        side=side,
        latent=latent,
        role=role,
        top=fired(order[:TOP_PROMPTS].tolist()),
        others=fired(rest[:OTHER_PROMPTS]),
        fires=[(name, int((found > 0).sum()), len(found)) for name, found in by_condition.items()],
        density=density(by_condition, f"Activations of {side} latent {latent} by condition"),
        relatives=relatives[:RELATIVES_MAX],
        relatives_hidden=max(0, len(relatives) - RELATIVES_MAX),
    )


def _drawn(text: str) -> str:
    """Return an order that has nothing to do with what a text says, and is always the same."""
    return hashlib.sha256(text.encode()).hexdigest()


def _relatives(side: Side, latent: int, pairs: pandas.DataFrame) -> list[Relative]:
    other: Side = "fine" if side == "coarse" else "coarse"
    rows = pairs[pairs[side] == latent].sort_values("cosine", ascending=False, kind="stable")
    return [
        Relative(
            other,
            int(getattr(row, other)),
            float(row.cosine),
            float(row.correlation),
            str(row.reading),
            bool(row.child),
        )
        for row in rows.itertuples()
    ]


def _both(
    pairs: pandas.DataFrame,
    coarse: dict[int, NDArray[np.float32]],
    fine: dict[int, NDArray[np.float32]],
    texts: list[str],
) -> list[tuple[int, int, list[str]]]:
    found = []
    for row in pairs.itertuples():
        together = coarse[row.coarse] * fine[row.fine]
        best = np.argsort(-together, kind="stable")[:3]
        shared = [texts[place] for place in best if together[place] > 0]
        found.append((int(row.coarse), int(row.fine), shared))
    return found
