"""The answer in short: the questions that a reader has first, a sentence or two each."""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.reports.page.sections.gate_settings import GateSettings
from loopscope.reports.page.sections.latents import Latent, Latents
from loopscope.reports.page.story import doubts, sentence
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import GATE, GATE_DRAWS
from loopscope.specs.artifacts.steering import ARMS, VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.views.experiment import ExperimentView
from loopscope.views.gate_sensitivity import gate_by_min_subfeatures
from loopscope.views.numbers import MINUS, count, decimal, percent, signed, signed_interval
from loopscope.views.sensitivity.looks import Looks
from loopscope.views.stopping import stopping_sentence

CHILDREN_NAMED_MAX = 6
NOTHING_OF_ITS_OWN = "Nothing beside what no such run can tell; that stands below."
EQUAL = {
    "nextTokenKl": "all arms at the same disturbance of neutral text",
    "fluencyLoss": "all arms at the same loss of fluency on neutral text",
}
SHOWN_ARMS = ("none", "coarse", "fine", "multi")


@dataclass(frozen=True)
class Short:
    """A question and its answer in a sentence or two."""

    question: str
    answer: str


def in_short(
    view: ExperimentView,
    latents: Latents,
    looks: Looks,
    settings: GateSettings,
) -> list[Short]:
    """Return the answers that the finished stages give, in the order in which they are asked."""
    found = []
    if view.stage("mapping").available:
        gate = view.stage("mapping").document(GATE)
        found.append(Short("Which latents answer to the concept?", _which(gate)))
        first = best_of(gate, latents)
        if first is not None:
            found.append(Short("What do they fire on?", _fires(first)))
        found.append(Short("How sure is that?", sentence(view.confirmation)))
        found.append(Short("Does the fine dictionary split it (GO)?", _gate(view, gate)))
    if view.stage("steering").available:
        verdict = view.stage("steering").document(VERDICT)
        found.append(Short("Do both together steer better than one?", _steering(view, verdict)))
    if found:
        found.append(Short("What would change that?", _change(view, looks, settings)))
    return found


def in_doubt(view: ExperimentView) -> list[Short]:
    """Return what the answers rest on, and what they leave in doubt; nothing without answers."""
    if not view.stage("mapping").available:
        return []
    return [
        Short("What does it rest on?", _rests_on(view)),
        Short("What is in doubt?", " ".join(doubts(view)) or NOTHING_OF_ITS_OWN),
    ]


def best_of(gate: Gate, latents: Latents) -> Latent | None:
    """Return the steered anchor as it is shown, else the first latent that is."""
    coarse = [one for one in latents.shown if one.side == "coarse"]
    steered = (one for one in coarse if one.latent == gate.get("steered"))
    return next(steered, None) or next(iter(latents.shown), None)


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


def _gate(view: ExperimentView, gate: Gate) -> str:
    """Return the gate's word, and why, in words that need none of its own."""
    told = gate.get("doubts") or []
    if not gate["anchors"] or "best_count" not in gate:
        return sentence(f"{gate['verdict']}: {'; '.join(told) or gate['reason']}")
    rules, best = view.stage("mapping").spec, gate["best_count"]
    also = (
        f" and a correlation of at least {decimal(rules['minCorrelation'])}"
        if gate["rule"] == "strict"
        else ""
    )
    has = "an anchor has" if best >= gate["minSubfeatures"] else "no anchor has more than"
    why = [
        f"{has} {count(best)} {'child' if best == 1 else 'children'} (fine "
        f"latents with a cosine of at least {decimal(rules['minCosine'])}{also} to it), and "
        f"{count(gate['minSubfeatures'])} were asked for"
    ]
    if gate["verdict"] == "INCONCLUSIVE":
        why += told
    percentile = gate.get("percentile")
    if gate["verdict"] == "GO" and percentile is not None:
        why.append(
            f"ranked by such counts the anchors stand above {percent(percentile / 100, 0)} of sets "
            "of coarse latents that are as frequent in text"
        )
    return sentence(f"{gate['verdict']}: {'; '.join(why)}")


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
    if stopped := stopping_sentence(verdict):
        word += f". {stopped.partition(': the e-value')[0]}"
    return f"{word}. Texts with a word of the concept: {rates}."


def _change(view: ExperimentView, looks: Looks, settings: GateSettings) -> str:
    parts = _gate_changes(view, settings)
    if view.stage("steering").available:
        parts += _verdict_changes(view.stage("steering").document(VERDICT), looks)
    return sentence("; ".join(parts or ["nothing that can be computed from what is stored"]))


def _verdict_changes(verdict: Verdict, looks: Looks) -> list[str]:
    parts = []
    if verdict.get("n_needed"):
        openings, samples = count(verdict["n_needed"]), verdict.get("samples_needed") or 1
        parts.append(
            f"{openings} openings with {samples} sample{'s' if samples > 1 else ''} each would "
            f"detect a difference of {decimal(verdict['min_difference'])}"
        )
    for one in looks.ranges:
        if one.verdict != verdict["verdict"]:
            span = decimal(one.low) + (f" to {decimal(one.high)}" if one.high > one.low else "")
            parts.append(f"a smallest difference that matters of {span} gives {one.verdict}")
    others = [one for one in looks.changing if one.axis != "minDifference"]
    tried = sum(one.axis != "minDifference" for one in looks.judged)
    if tried:
        parts.append(
            f"{count(len(others))} of {count(tried)} other choices of words, outcome, strength, "
            "sampling, openings or anchor give another word"
        )
    return parts


def _gate_changes(view: ExperimentView, settings: GateSettings) -> list[str]:
    """Return the nearest values of the gate's fields, one moved at a time, with another answer."""
    stage = view.stage("mapping")
    gate = stage.document(GATE)
    if "null" not in gate or "mean_rank" not in gate:
        return []
    parts = []
    for one in gate_by_min_subfeatures(gate, stage.table(GATE_DRAWS)):
        if one.verdict != gate["verdict"]:
            span = f"{one.low} or more" if one.is_last else f"{one.low} to {one.high}"
            span = str(one.low) if one.low == one.high and not one.is_last else span
            parts.append(f"asking for {span} children gives {one.verdict}")
    declared = {one.field: one.value for one in settings.moved if one.is_declared}
    others = [one for one in settings.moved if one.range.verdict != gate["verdict"]]
    for field, own in declared.items():
        near = sorted((abs(o.value - own), o.value, o) for o in others if o.field == field)
        if near:
            parts.append(f"{field} {near[0][1]:g} gives {near[0][2].range.verdict}")
    return parts


def _rests_on(view: ExperimentView) -> str:
    spec = view.experiment.spec
    target, neutral = (len(spec["prompts"][name]["texts"]) for name in ("target", "neutral"))
    words = f"{count(target)} target and {count(neutral)} neutral prompts"
    if view.stage("steering").available:
        rules, n = view.stage("steering").spec, view.stage("steering").document(VERDICT)["n"]
        samples = rules["samplesPerPrompt"]
        equal = EQUAL.get(rules["strengthUnit"], "at equal norms")
        words += (
            f"; {count(n)} openings with {count(samples)} sample{'s' if samples > 1 else ''} under "
            f"each arm, {equal}"
        )
    return f"{words}. One concept, one pair of dictionaries, one place in one model: one draw."
