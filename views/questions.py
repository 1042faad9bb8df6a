"""Questions of an experiment: what may be asked of it, and what was answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from loopscope.reconcilers.references import child_key
from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.evidence import SHOWN_LATENTS
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.artifacts.question import ANSWERS, ASKED_ACTIVATIONS, ASKED_TOKENS
from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import Key
from loopscope.specs.payloads.steering import SIDES, Side
from loopscope.specs.pipeline import NodeName
from loopscope.specs.shown_latents import ASKED_LATENTS_MAX, LATENTS_MAX, shown_latents
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.store import Corrupt, unusable
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.forecasts import BUDGETED

Latents = Mapping[Side, Sequence[int]]
UNSTEERED = "none"


@dataclass(frozen=True)
class Word:
    """A token of the text: what it adds, and whether the arm acts there."""

    text: str
    steered: bool


@dataclass(frozen=True)
class GoneOn:
    """How the text goes on under an arm at a strength; ``none`` is unsteered."""

    arm: str
    strength: float
    norm: float
    text: str
    after_steered: int


@dataclass(frozen=True)
class Answer:
    """What was answered. ``activations`` [tokens] of each latent that was asked for, 0 if silent.

    ``problem`` is why there is no answer.
    """

    key: Key
    problem: str = ""
    asked: JsonObject = field(default_factory=dict)
    words: Sequence[Word] = ()
    activations: Mapping[tuple[Side, int], Sequence[float]] = field(default_factory=dict)
    texts: Sequence[GoneOn] = ()

    @property
    def text(self) -> str:
        """The text that was asked about."""
        return str(self.asked.get("text", ""))


def shown_of(view: ExperimentView) -> dict[Side, list[int]]:
    """Return the latents that an experiment's evidence shows, or those that it would.

    Raises LookupError where the mapping has not told them yet.
    """
    stage = view.stage("evidence")
    if stage.available:
        table = stage.table(SHOWN_LATENTS)
        pairs = list(zip(table["side"], table["latent"], strict=True))
    else:
        gate = _ready(view, "mapping").document(GATE)
        shown = shown_latents(gate["anchors"], view.candidates("fine"))[:LATENTS_MAX]
        pairs = [(one.side, one.latent) for one in shown]
    found: dict[Side, list[int]] = {side: [] for side in SIDES}
    for side, latent in pairs[:ASKED_LATENTS_MAX]:
        found[side].append(int(latent))
    if not any(found.values()):
        raise LookupError(
            f"{view.name} has no anchor and no candidate, so it shows no latent; name some "
            "(--latent coarse/279)"
        )
    return found


def strengths_of(view: ExperimentView) -> dict[str, list[float]]:
    """Return the arms of an experiment with their strengths. Raises LookupError without a steering.

    ``none`` is left out: every answer has it.
    """
    table = _ready(view, "steering").table(ARMS)
    found: dict[str, list[float]] = defaultdict(list)
    for arm, strength in zip(table["arm"], table["strength"], strict=True):
        if arm != UNSTEERED:
            found[str(arm)].append(float(strength))
    return dict(found)


def asks_latents(view: ExperimentView, text: str, latents: Latents | None = None) -> JsonObject:
    """Return the spec of a question: the activations of latents, by default of the shown ones.

    Raises LookupError where the experiment has not got so far.
    """
    _ready(view, "mapping")
    chosen = latents if latents is not None else shown_of(view)
    named: JsonObject = {side: [*sorted(set(chosen.get(side, ())))] for side in SIDES}
    return {**_named(view, "capture", "mapping"), "text": text, "latents": named}


def asks_arm(
    view: ExperimentView, text: str, arm: str, strength: float | None, new_tokens: int | None = None
) -> JsonObject:
    """Return the spec of a question: how a text goes on under an arm.

    Without a strength it is the strongest that was steered. Raises LookupError for an arm that the
    steering does not have, and for a strength where only those that were measured have a meaning.
    """
    known = strengths_of(view)
    if arm not in known:
        raise LookupError(f"{view.name} has no arm {arm!r}; it has {', '.join(known)}")
    unit = str(view.stage("steering").spec["strengthUnit"])
    wanted = max(known[arm]) if strength is None else strength
    if unit in BUDGETED and wanted not in known[arm]:
        there = ", ".join(f"{one:g}" for one in known[arm])
        raise LookupError(
            f"{arm} was not steered at {wanted:g} {unit}, and how long its vector is there was not "
            f"measured; its strengths are {there}"
        )
    steered: JsonObject = {"arm": arm, "strength": wanted}
    if new_tokens is not None:
        steered["maxNewTokens"] = new_tokens
    return {**_named(view, "capture", "mapping", "steering"), "text": text, "steered": steered}


def answer_of(state: StateFolder, key: Key) -> Answer:
    """Return what was answered to a question, or why there is no answer. Raises KeyError."""
    with state.database.read() as connection:
        record = objects.get(connection, key)
        if record is None:
            raise KeyError(str(key))
        reference = record.status.artifact
        known = artifact_index.get(connection, reference.digest) if reference else None
    if not record.ready or reference is None:
        ready = record.status.condition("Ready")
        why = f"{ready.reason}: {ready.message}" if ready else "Pending: nobody looked at it yet"
        return Answer(key, why, record.spec)
    try:
        artifact = known or state.artifacts.record(reference.stage, reference.digest)
        folder = state.artifacts.fetch(artifact)
        words = _rows(folder, ASKED_TOKENS)
        fired = _rows(folder, ASKED_ACTIVATIONS)
        texts = _rows(folder, ANSWERS)
    except (Corrupt, OSError) as error:
        return Answer(key, unusable(error), record.spec)
    activations: dict[tuple[Side, int], list[float]] = {
        (side, latent): [0.0] * len(words)
        for side in SIDES
        for latent in record.spec.get("latents", {}).get(side, ())
    }
    for row in fired:
        activations[row["side"], row["latent"]][row["place"] - 1] = row["activation"]
    return Answer(
        key,
        asked=record.spec,
        words=[Word(row["text"], row["steered"]) for row in words],
        activations=activations,
        texts=[
            GoneOn(row["arm"], row["strength"], row["norm"], row["text"], row["after_steered"])
            for row in texts
        ],
    )


def _rows(folder: Path, table: Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder / table.name).to_pylist()
    return rows


def _ready(view: ExperimentView, name: NodeName) -> StageView:
    stage = view.stage(name)
    if not stage.available:
        raise LookupError(
            f"{view.name} cannot be asked yet: its {name} is not there: "
            f"{stage.problem or 'it made nothing'}"
        )
    return stage


def _named(view: ExperimentView, *names: NodeName) -> JsonObject:
    return {f"{name}Ref": {"name": child_key(view.experiment.key, name).name} for name in names}
