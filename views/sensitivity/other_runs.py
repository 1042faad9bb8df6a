"""Looks that other runs answer, and what to write for those that nobody made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas

from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.spec_json import SamplingJson, SteeringRulesJson
from loopscope.views.other_runs import OtherRun
from loopscope.views.sensitivity.look import Look, not_run, without_advice

TEMPERATURES = (0.3, 0.8, 1.0)
"""Sampling rules that are named beside greedy, whether somebody tried them or not."""


def other_run_looks(
    runs: Sequence[OtherRun],
    spec: SteeringRulesJson,
    gate: Gate | None,
    arms: pandas.DataFrame,
) -> Iterator[Look]:
    """Yield what other runs came to, and what to write for those that are not there.

    ``arms`` is ``arms.parquet``.
    """
    for axis in ("lexicon", "strength"):
        yield from (_ran(run, _words(run)) for run in runs if run.axis == axis)
    yield from _other_budget(runs, spec, arms)
    yield from _sampling(runs, spec["sampling"])
    yield from _openings(runs)
    if gate is not None:
        yield from _anchors(runs, gate)


def _other_budget(
    runs: Sequence[OtherRun], spec: SteeringRulesJson, arms: pandas.DataFrame
) -> Iterator[Look]:
    """Yield equal norms beside equal effects, or the other way round, where nobody ran them."""
    units = {run.setting.get("steering.strengthUnit") for run in runs if run.axis == "strength"}
    if spec["strengthUnit"] in ("nextTokenKl", "fluencyLoss"):
        if units & {"absolute", "residualNorm", "centredResidualNorm"}:
            return
        norms = sorted(arms.loc[arms["arm"] == "multi", "norm"].round(2))
        lines = f"write steering.strengthUnit: absolute, steering.strengths: {norms}"
        yield not_run("strength", "all arms at equal norm", lines)
    elif not units & {"nextTokenKl", "fluencyLoss"}:
        lines = "write steering.strengthUnit: nextTokenKl, steering.strengths: [0.05, 0.1, 0.2]"
        yield not_run("strength", "all arms at equal next-token KL", lines)


def _sampling(runs: Sequence[OtherRun], own: SamplingJson) -> Iterator[Look]:
    own_words = sampling_words(own)
    tried = {own_words}
    for run in (run for run in runs if run.axis == "sampling"):
        words = sampling_words(run.setting["steering.sampling"])
        tried.add(words)
        yield _ran(run, words)
    wanted: list[tuple[SamplingJson, str]] = [
        ({**own, "greedy": True}, "steering.sampling.greedy: true")
    ]
    for temperature in TEMPERATURES:
        rule: SamplingJson = {**own, "greedy": False, "temperature": temperature}
        first = "steering.sampling.greedy: false, " if own["greedy"] else ""
        wanted.append((rule, f"{first}steering.sampling.temperature: {temperature}"))
    for rule, lines in wanted:
        words = sampling_words(rule)
        if words not in tried:
            yield not_run("sampling", words, f"write {lines}")


def sampling_words(rule: SamplingJson) -> str:
    """Return a sampling rule in words: what has no effect is left out."""
    if rule["greedy"]:
        return "greedy"
    return (
        f"temperature {rule['temperature']:g}, top-k {rule['topK']}, top-p {rule['topP']:g}, "
        f"seed {rule['seed']}"
    )


def openings_words(texts: Sequence[str]) -> str:
    """Return a set of openings in words."""
    return f"{len(texts)} openings, the first {texts[0]!r}"


def _openings(runs: Sequence[OtherRun]) -> Iterator[Look]:
    there = [run for run in runs if run.axis == "openings"]
    for run in there:
        yield _ran(run, openings_words(run.setting["steering.prompts"]["texts"]))
    if not there:
        lines = "write steering.prompts: {file: …}, or {templates: […], lists: {…}}"
        yield not_run("openings", "paraphrased or templated openings", lines)


def _anchors(runs: Sequence[OtherRun], gate: Gate) -> Iterator[Look]:
    """Yield each other candidate, and runs that steered it, or the same one with other children."""
    there = [run for run in runs if run.axis == "anchor"]
    for run in there:
        yield _ran(run, _anchor(run.summary.get("anchor"), run.summary.get("anchor_children", 0)))
    steered = {run.summary.get("anchor") for run in there} | {gate.get("steered")}
    for entry in gate["anchors"]:
        latent, children = entry["coarse"], len(entry["children"])
        if latent in steered:
            continue
        setting = _anchor(latent, children)
        lines = f"write mapping.anchor: {latent}"
        impossible = "nothing to run: without a child there is no fine arm, and no verdict"
        yield not_run("anchor", setting, lines if children else impossible)


def _anchor(latent: int | None, children: int) -> str:
    return f"C-{latent} with {children} {'child' if children == 1 else 'children'}"


def _ran(run: OtherRun, setting: str) -> Look:
    found = run.summary
    told = without_advice(found.get("reason", "")) if found["verdict"] == "NotTestable" else ""
    return Look(
        run.axis,
        setting,
        "other run",
        found["verdict"],
        found.get("contrast") or "",
        found.get("estimate"),
        found.get("low"),
        found.get("high"),
        found.get("n"),
        note="; ".join(one for one in (f"experiment {run.name}", told) if one),
    )


def _words(run: OtherRun) -> str:
    parts = []
    for field, value in sorted(run.setting.items()):
        texts = value.get("texts") if isinstance(value, Mapping) else None
        shown = f"{len(texts)} texts" if texts is not None else str(value)
        parts.append(f"{field.rpartition('.')[2]} {shown}")
    return ", ".join(parts)
