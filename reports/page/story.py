"""The headline in plain sentences: what was asked, what came out, what not to conclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from markupsafe import Markup, escape

from loopscope.reports.page.fairness import budget_caution
from loopscope.specs.artifacts.gate import Gate, GateControl
from loopscope.specs.artifacts.mapping import GATE, PAIRS
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.pipeline import NodeName
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import (
    count,
    counted,
    decimal,
    is_missing,
    percent,
    signed,
    signed_interval,
    testable,
)

COMMON_SHARE = 0.5
RARE_SHARE = 0.05
SAME_DIRECTION_COSINE = 1 - 1e-5
"""Cosine of two rows that differ by the rounding of float32 alone."""


@dataclass(frozen=True)
class Answer:
    """One answer: what it is about, its word (``GO``, ``Inconclusive``), sentences."""

    about: str
    word: str
    sentences: list[str]


@dataclass(frozen=True)
class Headline:
    """What was asked, what came out, and what must not be concluded."""

    question: str
    answers: list[Answer]
    cautions: list[str]


def headline(view: ExperimentView) -> Headline:
    """Return question, answers and cautions."""
    return Headline(question(view), answers(view), cautions(view))


def question(view: ExperimentView) -> str:
    """Return what the experiment asked, with its sizes."""
    spec = view.experiment.spec
    prompts = spec["prompts"]
    target, neutral = (len(prompts[name]["texts"]) for name in ("target", "neutral"))
    sizes = [view.stage(side).metrics.get("d_sae") for side in ("coarse", "fine")]
    coarse, fine = (f" ({count(size)} latents)" if size else "" for size in sizes)
    written = f", written at {spec['writeHook']}," if "writeHook" in spec else ""
    asked = (
        f"Which latents of the coarse dictionary{coarse} answer to the {target} target prompts and "
        f"not to the {neutral} neutral ones, and which latents of the fine dictionary{fine} "
        f"resolve them further, at {spec['hook']}{written} of {spec['model']['name']}?"
    )
    if "steering" in spec:
        asked += " Does steering along both together work better than along one alone?"
    return asked


def answers(view: ExperimentView) -> list[Answer]:
    """Return the gate's and the steering's answer, or why one is missing."""
    found = [_gate(view)]
    if "steering" in view.stages:
        found.append(_steering(view))
    return found


def share_sentence(gate: Gate) -> str:
    """Return what the share of all coarse latents that pass means for the gate's worth."""
    share = gate.get("share_of_all")
    if share is None:
        return "How many other coarse latents would pass is not known, so its worth is not known."
    by_chance = f"A coarse latent picked at random passes with probability {percent(share)}"
    if share >= COMMON_SHARE:
        return f"{by_chance}: passing says next to nothing about the concept."
    if share > RARE_SHARE:
        return f"{by_chance}: passing is weak evidence."
    return f"{by_chance}: passing sets an anchor apart from most latents."


_CONTROLS = {
    None: "dictionaries of random directions",
    "decoder rows": "dictionaries of random rows that spread as the fine decoder's do",
    "stream rows": "dictionaries of random rows that spread as the residual stream does",
    "permuted pairs": "dictionaries whose activations were dealt to other decoder rows",
}
"""Gates of before controls had a kind were compared with random directions."""


@dataclass(frozen=True)
class NamedControl:
    """A control of a gate, with its name; what it does not have is None."""

    name: str
    dictionaries: int
    p: float
    median_count: float
    max_count: int
    decides: bool
    effective_dimensions: float | None


def controls(gate: Gate) -> list[NamedControl]:
    """Return the controls of a gate, each with its name; those of older gates too."""
    control = gate.get("control")
    if not control:
        return []
    found: Sequence[GateControl] = control.get("controls") or [control]
    return [
        NamedControl(
            _CONTROLS[entry.get("kind")],
            entry["dictionaries"],
            entry["p"],
            entry["median_count"],
            entry["max_count"],
            entry.get("decides", True),
            entry.get("effective_dimensions"),
        )
        for entry in found
    ]


def calibration_sentences(gate: Gate) -> list[str]:
    """Return what the gate was compared with; nothing for a gate that was not calibrated."""
    if "null" not in gate:
        return []
    control, corner = gate["control"], gate["empty_corner"]
    found = [_rank_sentence(gate) if "mean_rank" in gate else _maximum_sentence(gate)]
    reached = round(control["p"] * (control["dictionaries"] + 1)) - 1
    found.append(
        f"Of {count(control['dictionaries'])} {_CONTROLS[control.get('kind')]} "
        f"{count(reached)} reach the count of {count(gate['best_count'])}."
    )
    if corner["of"]:
        found.append(
            f"Near in geometry but not in behaviour, the corner said to be empty, are "
            f"{count(corner['count'])} of {count(corner['of'])} observed pairs of an anchor with "
            f"the cosine of a child ({percent(corner['share'])}); {count(corner['unobserved'])} "
            "more fire on no prompt, or always alike."
        )
    return found


def _rank_sentence(gate: Gate) -> str:
    """Return how the candidates rank among matched anchors, or that nothing was matched."""
    null = gate["null"]
    if gate["mean_rank"] is None:
        return "The candidates were matched with no other latents."
    return (
        f"Among anchors that are no candidates but are as frequent in text, as long and as "
        f"crowded, the candidates' mean rank is {decimal(gate['mean_rank'], 1)} (like these would "
        f"be 50); of {count(null['anchors'])} sets of such anchors "
        f"{count(null['at_least_as_high'])} reach it."
    )


class _OlderSets(TypedDict):
    anchors: int
    at_least_as_many: int


def _maximum_sentence(gate: Gate) -> str:
    """Return what was compared before anchors were ranked: artifacts of older revisions."""
    null = cast(_OlderSets, gate["null"])
    return (
        f"The best of {count(len(gate['anchors']))} anchors has {count(gate['best_count'])} "
        f"children; of {count(null['anchors'])} sets of anchors that are no candidates but fire "
        f"as often on the prompts, {count(null['at_least_as_many'])} have at least as many."
    )


def assay_sentence(verdict: Verdict) -> str:
    """Return whether the run could have shown a difference; empty if no arm determines it."""
    assay = verdict.get("assay")
    if not assay:
        return ""
    if assay["doubt"]:
        return f"Assay: {sentence(assay['doubt'])}"
    effect, arm = assay["effect"], assay["arm"]
    return (
        f"Assay: {arm} beats unsteered by {signed(effect['estimate'])} "
        f"{signed_interval(effect['low'], effect['high'])}; headroom: {arm} alone reaches "
        f"{decimal(assay['rate'])}, and up to {decimal(1 - verdict['min_difference'])} is "
        "low enough for a difference to be seen."
    )


def doubts(view: ExperimentView) -> list[str]:
    """Return what this run's own answers leave in doubt."""
    found = []
    if view.stage("mapping").available:
        found.extend(_mapping_doubts(view))
    if view.stage("steering").available:
        found.extend(_steering_doubts(view))
    quantised = model_facts(view).get("quantised")
    if quantised:
        found.append(
            f"Nothing here is about the original weights: the model is {quantised}, which is "
            "another model than the published one."
        )
    found.extend(f"{one.object.name}: {one.words}." for one in view.quantised)
    return found


def cautions(view: ExperimentView) -> list[str]:
    """Return what a reader must not conclude from any such run."""
    found = []
    if view.stage("mapping").available:
        found += [
            "A correlation over target and neutral prompts together is high for any two latents "
            "that follow the concept; the column within target asks whether they agree among "
            "target prompts.",
            "Candidates were chosen and mapped on the same prompts, so their numbers look better "
            f"than they would on new prompts ({view.confirmation}).",
        ]
    if view.stage("steering").available:
        found += [
            "The best strength of an arm was seen on the openings that score it; it is a pointer "
            "to samples worth reading, not a result.",
            "The concept score counts texts with a word of the lexicon; it does not judge their "
            "sense.",
        ]
    if view.stage("coarse").available:
        found.append(
            "L0 and FVU below are those of the captured rows "
            f"({view.stage('coarse').metrics.get('population', 'population unknown')}); "
            "they do not describe the dictionaries on general text."
        )
    return found


def model_facts(view: ExperimentView) -> Mapping[str, Any]:
    """Return what the model reference resolved to; empty while that is not known."""
    record = view.stage("capture").record
    facts = record.status.inputs.get("model", {}) if record else {}
    return facts if isinstance(facts, dict) else {}


def _gate(view: ExperimentView) -> Answer:
    stage = view.stage("mapping")
    if not stage.available:
        return _missing(view, "Gate", "mapping")
    gate = stage.document(GATE)
    other = gate["other_rule"]
    sentences = [
        sentence(gate["reason"]),
        *calibration_sentences(gate),
        share_sentence(gate),
        f"By the {other['rule']} rule {count(other['passing_all'])} of all "
        f"{count(other['n_all'])} coarse latents pass ({percent(other['share_of_all'])}).",
    ]
    return Answer("Gate", gate["verdict"], sentences)


def _steering(view: ExperimentView) -> Answer:
    stage = view.stage("steering")
    if not stage.available:
        return _missing(view, "Steering", "steering")
    found = stage.document(VERDICT)
    verdict = testable(found)
    sentences = []
    if not is_missing(verdict.get("estimate")):
        contrast = str(verdict["contrast"]).replace("-", " minus ", 1)
        sentences.append(
            f"{sentence(contrast)[:-1]}: the share of texts with a word of the lexicon, averaged "
            f"over strengths, differs by {signed(verdict['estimate'])} (95 % interval "
            f"{signed_interval(verdict.get('low'), verdict.get('high'))}, {verdict['n']} openings)."
        )
    if verdict.get("reason"):
        sentences.append(sentence(str(verdict["reason"])))
    sentences += _steered_anchor(view)
    return Answer("Steering", verdict["verdict"], sentences)


def _steered_anchor(view: ExperimentView) -> list[str]:
    """Return which anchor was steered, with its count and its rank; nothing in older artifacts."""
    stage = view.stage("mapping")
    entries = stage.document(GATE)["anchors"] if stage.available else []
    return [
        f"Steered is coarse latent {entry['coarse']} with "
        f"{counted(len(entry['children']), 'child', 'children')}, rank "
        f"{decimal(entry['rank'], 1)} among its matched anchors."
        for entry in entries
        if entry.get("steered")
    ]


def _missing(view: ExperimentView, about: str, name: NodeName) -> Answer:
    stage = view.stage(name)
    answered = stage.answered or stage.artifact is not None  # also of other rules: see its problem
    summary = stage.record.status.summary if stage.record and answered else {}
    return Answer(about, str(summary.get("verdict", "not available")), [sentence(stage.problem)])


def _mapping_doubts(view: ExperimentView) -> list[str]:
    gate = view.stage("mapping").document(GATE)
    found = []
    if gate["verdict"] == "GO" and (gate.get("share_of_all") or 0) > RARE_SHARE:
        found.append(
            f"GO does not mean that the fine dictionary splits this concept in particular: "
            f"{percent(gate['share_of_all'])} of all coarse latents pass the same rule."
        )
    if gate["verdict"] == "INCONCLUSIVE":
        found.append(
            "INCONCLUSIVE does not mean that there is nothing: it means that these prompts and "
            "dictionaries cannot tell it from what other latents show."
        )
    if gate["verdict"] == "NO-GO":
        found.append(
            "NO-GO does not mean that the fine dictionary lacks the concept: it means that no "
            "anchor reached the declared number of children."
        )
    if both := _anchors_in_both(view):
        found.append(
            f"{count(both)} of {count(len(gate['anchors']))} anchors have a fine latent with "
            "cosine 1, as where one dictionary is a part of the other: each counts as a child of "
            "itself, and what is steered along its children holds it as well."
        )
    return found


def _anchors_in_both(view: ExperimentView) -> int:
    """Return how many anchors have the very direction of a fine latent."""
    pairs = view.stage("mapping").table(PAIRS)
    return int(pairs["coarse"][pairs["cosine"] >= SAME_DIRECTION_COSINE].nunique())


def _steering_doubts(view: ExperimentView) -> list[str]:
    verdict = view.stage("steering").document(VERDICT)
    found = []
    if verdict["verdict"] == "Inconclusive":
        found.append(
            "Inconclusive is not the same as no difference: the interval still holds differences "
            "that would matter."
        )
    if verdict["verdict"] == "NotTestable":
        found.append("NotTestable says nothing about which arm is better.")
    if few := budget_caution(verdict):
        found.append(few)
    if view.stage("steering").spec["strengthUnit"] not in ("nextTokenKl", "fluencyLoss"):
        found.append(
            "The contrast compares arms at equal norms, which are not equal disturbances: in the "
            "figure, compare arms at equal KL."
        )
    return found


def sentence(text: str) -> str:
    """Return a reason or message as a sentence: a capital first, a full stop last."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def coded(text: str) -> Markup:
    """Return a text, escaped, in which what stands between backticks is set as code."""
    parts = (
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)
