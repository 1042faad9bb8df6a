"""The first screen of a report: one sentence of answer, one picture, six questions and two more."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.headline import Share, arm_shares, shares_picture
from loopscope.reports.page.in_short import Short, best_of, in_doubt, in_short
from loopscope.reports.page.sections.gate_settings import GateSettings
from loopscope.reports.page.sections.latents import Latents
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.artifacts.steering import ARMS, VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS, count, decimal, percent, signed, signed_interval
from loopscope.views.sensitivity.looks import Looks

ANCHORS_DRAWN_MAX = 4


@dataclass(frozen=True)
class Picture:
    """A figure and what stands under it."""

    figure: Markup
    caption: str


@dataclass(frozen=True)
class FirstScreen:
    """The answer in a sentence (empty while there is none), a picture if any, and questions."""

    answer: str
    picture: Picture | None
    questions: list[Short]
    doubts: list[Short]


def first_screen(
    view: ExperimentView,
    latents: Latents,
    looks: Looks,
    settings: GateSettings,
) -> FirstScreen:
    """Return what a reader sees before anything else."""
    return FirstScreen(
        _answer(view, latents),
        _picture(view, latents),
        in_short(view, latents, looks, settings),
        in_doubt(view),
    )


def _answer(view: ExperimentView, latents: Latents) -> str:
    if not view.stage("mapping").available:
        return ""
    gate = view.stage("mapping").document(GATE)
    parts = [_latents_words(gate, latents), _gate_words(gate)]
    if view.stage("steering").available:
        parts.append(_steering_words(view.stage("steering").document(VERDICT)))
    return f"{'; '.join(parts)}."


def _latents_words(gate: Gate, latents: Latents) -> str:
    anchors = gate["anchors"]
    if not anchors:
        return "No coarse latent answers to the concept"
    best = best_of(gate, latents)
    told = ""
    if best is not None:
        rates = (
            f"{percent(fires / of, 0)} of the {condition} prompts"
            for condition, fires, of in best.fires
            if of
        )
        told = f" ({'the best, ' if len(anchors) > 1 else ''}{best.name}, on {' and '.join(rates)})"
    if len(anchors) == 1:
        return f"One coarse latent answers to the concept{told}"
    return f"{count(len(anchors))} coarse latents answer to the concept{told}"


def _gate_words(gate: Gate) -> str:
    match gate["verdict"]:
        case "GO":
            best = count(gate["best_count"])
            return f"the fine dictionary splits it further (GO: up to {best} children of one)"
        case "NO-GO" if gate["anchors"]:
            most = max(len(one["children"]) for one in gate["anchors"])
            asked = count(gate["minSubfeatures"])
            return (
                f"the fine dictionary was not found to split it (NO-GO: {count(most)} "
                f"{'child' if most == 1 else 'children'} at most, {asked} were asked for)"
            )
        case "NO-GO":
            return "so there is nothing for the fine dictionary to split (NO-GO)"
    return "whether the fine dictionary splits it stays open (INCONCLUSIVE)"


def _steering_words(verdict: Verdict) -> str:
    if verdict["verdict"] == "NotTestable" or verdict.get("estimate") is None:
        return "whether steering along both together is better could not be tested"
    contrast = str(verdict["contrast"]).replace("-", f" {MINUS} ", 1)
    numbers = (
        f"{contrast} {signed(verdict['estimate'])}, 95 % interval "
        f"{signed_interval(verdict.get('low'), verdict.get('high'))}"
    )
    words = {
        "Supported": "steering along both together is better than along one alone",
        "Refuted": "steering along both together is worse than along one alone",
        "NoPracticalDifference": "steering along both together is no better than along the better "
        f"one alone, by {decimal(verdict['min_difference'])} or more",
    }
    open_ = "whether steering along both together is better than along one stays open"
    return f"{words.get(verdict['verdict'], open_)} ({verdict['verdict']}: {numbers})"


def _picture(view: ExperimentView, latents: Latents) -> Picture | None:
    steering = view.stage("steering")
    if steering.available:
        strengths = steering.spec["strengths"]
        at = f", at the weakest strength ({min(strengths):g})" if len(strengths) > 1 else ""
        title = "Share of texts with a word of the concept, by arm"
        return Picture(
            shares_picture(title, arm_shares(steering.table(ARMS))),
            f"{title}, with 95 % intervals{at}. Multi is both together, coarse and fine are one "
            "alone; all others are controls.",
        )
    shown = [one for one in latents.shown if one.side == "coarse"][:ANCHORS_DRAWN_MAX]
    shares = [
        Share(f"{one.name} {condition}", f"condition-{condition}", fires / of)
        for one in shown
        for condition, fires, of in one.fires
        if of
    ]
    if not shares:
        return None
    title = "Share of prompts on which the latents fire"
    return Picture(shares_picture(title, shares), f"{title}.")
