"""Two runs of one spec: stage for stage where they part, and whether the effect is the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from loopscope.numerics.replication.effect import Equivalence
from loopscope.numerics.replication.firing import Floats
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.specs.pipeline import NodeName
from loopscope.views.numbers import MINUS, decimal, p_value, signed, signed_interval
from loopscope.views.replication.capture import capture_step
from loopscope.views.replication.decomposition import decomposition_step
from loopscope.views.replication.effects import equivalences, margin_of, word_of
from loopscope.views.replication.later import mapping_step, steering_step
from loopscope.views.replication.run import Run, StageRun
from loopscope.views.replication.step import Cause, Step, step_of

Answer = Literal[
    "same bytes", "same numbers", "same effect", "another effect", "not known", "not finished"
]
COMPARED: tuple[NodeName, ...] = ("capture", "coarse", "fine", "mapping", "steering")
"""What an answer rests on, in the order of the work."""
HOLDS: tuple[Answer, ...] = ("same bytes", "same numbers", "same effect")
"""Answers that say that a result was replicated."""


@dataclass(frozen=True)
class Replication:
    """Two runs side by side. ``words`` are gate and verdict of each, empty where there is none.

    ``missing`` are the stages that only one of them has, ``effects`` empty where no stage differs.
    """

    first: str
    second: str
    answer: Answer
    steps: tuple[Step, ...]
    effects: tuple[Equivalence, ...]
    margin: float | None
    words: tuple[tuple[str, str], tuple[str, str]]
    missing: tuple[NodeName, ...] = ()

    @property
    def parted(self) -> Step | None:
        """The first stage that differs by more than rounding."""
        return next((step for step in self.steps if step.state == "different"), None)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What parted them, at the first stage that differs."""
        return self.parted.causes if self.parted is not None else ()

    @property
    def holds(self) -> bool:
        """Whether the result was replicated."""
        return self.answer in HOLDS


def replication(
    first: Run,
    second: Run,
    *,
    others: Iterable[StageRun] = (),
    thresholds: Mapping[NodeName, Floats] | None = None,
) -> Replication:
    """Return how two runs compare. Raises Corrupt.

    ``others`` are captures of other places, ``thresholds`` those of a side's dictionary [latents].
    """
    steps = tuple(
        _step(name, first.stages[name], second.stages[name], others, thresholds or {})
        for name in COMPARED
        if name in first.stages and name in second.stages
    )
    missing = tuple(name for name in COMPARED if (name in first.stages) != (name in second.stages))
    margin = margin_of(first)
    differs = any(step.state == "different" for step in steps)
    effects = equivalences(first, second, margin) if margin is not None and differs else ()
    words = _words(first), _words(second)
    answer = _answer(steps, effects, missing, words, steered=margin is not None)
    return Replication(first.name, second.name, answer, steps, effects, margin, words, missing)


def _step(
    name: NodeName,
    one: StageRun,
    two: StageRun,
    others: Iterable[StageRun],
    thresholds: Mapping[NodeName, Floats],
) -> Step:
    if one.content_digest == two.content_digest:
        return step_of(name, one, two, "same bytes", f"sha256 {one.content_digest[:12]}")
    if name == "capture":
        return capture_step(one, two, others)
    if name in ("coarse", "fine"):
        return decomposition_step(name, one, two, thresholds.get(name))
    return mapping_step(one, two) if name == "mapping" else steering_step(one, two)


def _words(run: Run) -> tuple[str, str]:
    gate = run.stages["mapping"].document(GATE) if "mapping" in run.stages else None
    verdict = run.stages["steering"].document(VERDICT) if "steering" in run.stages else None
    return gate["verdict"] if gate else "", verdict["verdict"] if verdict else ""


def _answer(
    steps: tuple[Step, ...],
    effects: tuple[Equivalence, ...],
    missing: tuple[NodeName, ...],
    words: tuple[tuple[str, str], tuple[str, str]],
    *,
    steered: bool,
) -> Answer:
    states = {step.state for step in steps}
    if missing or not steps or "missing" in states:
        return "not finished"
    if states == {"same bytes"}:
        return "same bytes"
    if states <= {"same bytes", "same numbers"}:
        return "same numbers"
    if not steered:
        return "same effect" if words[0][0] == words[1][0] else "another effect"
    return word_of(effects)


def replication_sentences(found: Replication) -> Iterator[str]:
    """Yield the answer, what parted the two, and each contrast, in words."""
    yield f"{found.second} beside {found.first}: {found.answer}."
    if found.missing:
        yield f"Only one of them has {', '.join(found.missing)}."
    parted = found.parted
    if parted is not None:
        same = ", though both did the same work" if parted.same_work else ""
        yield f"They part at {parted.stage}{same}: {parted.words}."
        if not parted.causes:
            yield f"What parted them at {parted.stage} is not known."
    for cause in found.causes:
        yield f"{cause.name}: {cause.evidence}."
    for effect in found.effects:
        name = effect.contrast.replace("-", f" {MINUS} ")
        how = f"over {effect.n} shared openings" if effect.n else "no shared openings"
        yield (
            f"{name} differs by {signed(effect.difference)} "
            f"{signed_interval(effect.low_90, effect.high_90)} (90 %), {how}; "
            f"limit ±{decimal(found.margin)}, p {p_value(effect.p)}: {effect.word}."
        )
