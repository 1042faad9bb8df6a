"""The answer in short: six questions that a reader has first, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.reports.page.sections.latents import Latent, Latents
from loopscope.reports.page.story import sentence
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.artifacts.steering import ARMS, VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS, count, decimal, percent, signed, signed_interval
from loopscope.views.sensitivity import Range

CHILDREN_NAMED_MAX = 6
SHOWN_ARMS = ("none", "coarse", "fine", "multi")


@dataclass(frozen=True)
class Short:
    """A question and its answer in a sentence or two."""

    question: str
    answer: str


def in_short(view: ExperimentView, latents: Latents, sensitivity: Sequence[Range]) -> list[Short]:
    """Return the answers that the finished stages give, in the order in which they are asked."""
    found = []
    if view.stage("mapping").available:
        gate = view.stage("mapping").document(GATE)
        found.append(Short("Which latents answer to the concept?", _which(gate)))
        steered = next((one for one in latents.shown if one.latent == gate.get("steered")), None)
        first = steered or next(iter(latents.shown), None)
        if first is not None:
            found.append(Short("What do they fire on?", _fires(first)))
        found.append(Short("How sure is that?", sentence(view.confirmation)))
        found.append(Short("Does the fine dictionary split it (GO)?", _gate(gate)))
    if view.stage("steering").available:
        verdict = view.stage("steering").document(VERDICT)
        found.append(Short("Do both together steer better than one?", _steering(view, verdict)))
        found.append(Short("What would change that?", _change(verdict, sensitivity)))
    return found


def _which(gate: Gate) -> str:
    if not gate["anchors"]:
        return "No coarse latent passed the selection."
    parts = []
    for entry in gate["anchors"]:
        children = [f"F-{child}" for child in entry["children"]]
        named = ", ".join(children[:CHILDREN_NAMED_MAX])
        more = len(children) - CHILDREN_NAMED_MAX
        beside = f"with {named}{f' and {more} more' if more > 0 else ''}" if named else "alone"
        steered = ", steered" if entry.get("steered") else ""
        parts.append(f"C-{entry['coarse']} {beside}{steered}")
    return f"Coarse latents (C) and the fine ones close to them (F): {'; '.join(parts)}."


def _fires(latent: Latent) -> str:
    rates = " and ".join(f"{fires} of {of} {condition}" for condition, fires, of in latent.fires)
    if not latent.top:
        return f"{latent.name} fires on no prompt."
    return f"{latent.name} fires on {rates} prompts, most on “{latent.top[0].text}”."


def _gate(gate: Gate) -> str:
    doubts = gate.get("doubts") or []
    if doubts:
        return f"{gate['verdict']}: {'; '.join(doubts)}."
    percentile = gate.get("percentile")
    if percentile is None:
        return f"{gate['verdict']}."
    return (
        f"{gate['verdict']}: {count(gate['best_count'])} fine latents belong to an anchor, and the "
        f"anchors rank at percentile {decimal(percentile, 1)} among latents of their kind."
    )


def _steering(view: ExperimentView, verdict: Verdict) -> str:
    arms = view.stage("steering").table(ARMS).groupby("arm", sort=False)["concept_rate"].mean()
    rates = ", ".join(f"{arm} {percent(arms[arm], 0)}" for arm in SHOWN_ARMS if arm in arms)
    word = f"{verdict['verdict']}"
    if verdict.get("estimate") is not None:
        contrast = str(verdict["contrast"]).replace("-", f" {MINUS} ", 1)
        word += (
            f": {contrast} {signed(verdict['estimate'])} "
            f"{signed_interval(verdict.get('low'), verdict.get('high'))} over "
            f"{count(verdict['n'])} openings"
        )
    return f"{word}. Texts with a word of the concept: {rates}."


def _change(verdict: Verdict, sensitivity: Sequence[Range]) -> str:
    parts = []
    if verdict.get("n_needed"):
        openings, samples = count(verdict["n_needed"]), verdict.get("samples_needed") or 1
        parts.append(
            f"{openings} openings with {samples} sample{'s' if samples > 1 else ''} each would "
            f"detect a difference of {decimal(verdict['min_difference'])}"
        )
    for one in sensitivity:
        if one.verdict != verdict["verdict"]:
            span = decimal(one.low) + (f" to {decimal(one.high)}" if one.high > one.low else "")
            parts.append(f"a smallest difference that matters of {span} gives {one.verdict}")
    if not parts:
        return "Nothing that can be computed from the stored scores."
    return sentence("; ".join(parts))
