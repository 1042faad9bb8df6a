"""The section on what the shown latents fire on: top prompts, others, and relatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas
from markupsafe import Markup
from numpy.typing import NDArray

from loopscope.reports.page.figures.density import density
from loopscope.reports.page.sections.evidence import Evidence, Piece, Pushed, evidence
from loopscope.specs.artifacts.decomposition import ACTIVATIONS, PROMPTS
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE, PAIRS
from loopscope.specs.payloads.steering import Side
from loopscope.specs.shown_latents import LATENTS_MAX, ShownLatent, drawn_order, shown_latents
from loopscope.views.activations import prompt_activations
from loopscope.views.experiment import ExperimentView
from loopscope.views.labels import NOWHERE, Described, Label

TOP_PROMPTS = 8
OTHER_PROMPTS = 4
RELATIVES_MAX = 8


@dataclass(frozen=True)
class Fired:
    """A prompt of a latent; ``share`` is of its largest activation.

    ``pieces`` are the text with the activation of each token, one piece where that is not known;
    ``strongest`` is the token with the ``largest``.
    """

    text: str
    condition: str
    activation: float
    share: float
    pieces: list[Piece]
    strongest: str
    largest: float


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
    nearest: list[tuple[int, float]]
    """Latents of the same dictionary, with the cosine of the two decoder rows."""
    up: list[Pushed]
    down: list[Pushed]
    page: str | None = None
    """Its page elsewhere, if there is one."""
    label: Label | None = None
    """What is said of it there, if that was fetched."""

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
    evidence: Evidence
    shown: list[Latent]
    hidden: int
    both: list[tuple[int, int, list[str]]]
    """Coarse and fine latent of a kept pair, and prompts on which both fire, strongest first."""

    @property
    def places(self) -> set[tuple[Side, int]]:
        """Side and latent of those that have a place in the page."""
        return {(one.side, one.latent) for one in self.shown}


@dataclass(frozen=True)
class _Prompts:
    """The prompts of an experiment, one entry each."""

    ids: list[str]
    texts: list[str]
    conditions: list[str]

    @cached_property
    def drawn(self) -> list[int]:
        """Their numbers in an order that has nothing to do with what they say."""
        return drawn_order(self.texts)


def shown_on(view: ExperimentView) -> list[ShownLatent]:
    """Return the latents that the page shows; none while stages are missing."""
    if not all(view.stage(name).available for name in ("coarse", "fine", "mapping")):
        return []
    anchors = view.stage("mapping").document(GATE)["anchors"]
    return [
        *shown_latents(anchors, view.candidates("fine"))[:LATENTS_MAX],
        *evidence(view).controls,
    ]


def latents(view: ExperimentView, described: Described = NOWHERE) -> Latents:
    """Return what anchors, their children and the fine candidates fire on, then the controls.

    ``described`` says what others say of them, beside it.
    """
    stages = [view.stage(name) for name in ("coarse", "fine", "mapping")]
    problem = next((stage.problem for stage in stages if not stage.available), "")
    aggregation, seen = str(view.experiment.spec["aggregation"]), evidence(view)
    if problem:
        return Latents(problem, aggregation, seen, [], 0, [])
    gate, pairs = view.stage("mapping").document(GATE), view.stage("mapping").table(PAIRS)
    wanted = shown_latents(gate["anchors"], view.candidates("fine"))
    shown = [*wanted[:LATENTS_MAX], *seen.controls]
    table = view.prompts.table(PROMPTS)
    prompts = _Prompts(*(table[name].tolist() for name in ("prompt_id", "text", "condition")))
    activations: dict[Side, dict[int, NDArray[np.float32]]] = {
        side: prompt_activations(
            view.stage(side).path(ACTIVATIONS.name),
            {one.latent for one in shown if one.side == side}
            | set(pairs["coarse" if side == "coarse" else "fine"].tolist()),
        )
        for side in ("coarse", "fine")
    }
    return Latents(
        "",
        aggregation,
        seen,
        [
            _elsewhere(
                _latent(
                    one, _role(one, gate), activations[one.side][one.latent], prompts, pairs, seen
                ),
                described,
            )
            for one in shown
        ],
        len(wanted[LATENTS_MAX:]),
        _both(pairs, activations["coarse"], activations["fine"], prompts.texts),
    )


def _role(one: ShownLatent, gate: Gate) -> str:
    """Return in words why a latent is shown."""
    match one.role:
        case "anchor":
            steered = {entry["coarse"] for entry in gate["anchors"] if entry["steered"]}
            return "anchor, steered" if one.latent in steered else "anchor"
        case "child":
            return f"child of C-{one.anchor}"
        case "control":
            return f"control of C-{one.anchor}"
        case "candidate":
            return "fine candidate"


def _elsewhere(latent: Latent, described: Described) -> Latent:
    """Return a latent with what others say of it."""
    known = described.get(latent.side)
    if known is None:
        return latent
    return replace(latent, page=known.page(latent.latent), label=known.labels.get(latent.latent))


def _latent(
    one: ShownLatent,
    role: str,
    activations: NDArray[np.float32],
    prompts: _Prompts,
    pairs: pandas.DataFrame,
    seen: Evidence,
) -> Latent:
    side, latent, key = one.side, one.latent, (one.side, one.latent)
    if key in seen.chosen:
        number = {name: place for place, name in enumerate(prompts.ids)}
        top, others = ([number[n] for n in seen.chosen[key][why]] for why in ("top", "random"))
    else:
        firing = np.flatnonzero(activations > 0)
        top = firing[np.argsort(-activations[firing], kind="stable")][:TOP_PROMPTS].tolist()
        left = set(firing.tolist()) - set(top)
        others = [number for number in prompts.drawn if number in left][:OTHER_PROMPTS]
    names = list(dict.fromkeys(prompts.conditions))
    by_condition = {name: activations[np.array(prompts.conditions) == name] for name in names}
    relatives = _relatives(side, latent, pairs)
    return Latent(
        side=side,
        latent=latent,
        role=role,
        top=[_fired(one, number, activations, prompts, seen) for number in top],
        others=[_fired(one, number, activations, prompts, seen) for number in others],
        fires=[(name, int((found > 0).sum()), len(found)) for name, found in by_condition.items()],
        density=density(by_condition, f"Activations of {side} latent {latent} by condition"),
        relatives=relatives[:RELATIVES_MAX],
        relatives_hidden=max(0, len(relatives) - RELATIVES_MAX),
        nearest=seen.nearest.get(key, []),
        up=seen.up.get(key, []),
        down=seen.down.get(key, []),
    )


def _fired(
    one: ShownLatent,
    number: int,
    activations: NDArray[np.float32],
    prompts: _Prompts,
    seen: Evidence,
) -> Fired:
    text, activation = prompts.texts[number], float(activations[number])
    largest = float(activations.max(initial=0.0))
    tokens = seen.text(one.side, one.latent, prompts.ids[number])
    return Fired(
        text=text,
        condition=prompts.conditions[number],
        activation=activation,
        share=activation / largest if largest else 0.0,
        pieces=[Piece(text)] if tokens is None else tokens.pieces,
        strongest="" if tokens is None else tokens.strongest,
        largest=0.0 if tokens is None else tokens.largest,
    )


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
