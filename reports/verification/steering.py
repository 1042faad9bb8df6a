"""The arms and the verdict from the scores of texts: rates, contrasts, intervals and the word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas

from loopscope.numerics.statistics.paired import Contrast, rate_interval
from loopscope.numerics.verdict.budget_error import BudgetError
from loopscope.numerics.verdict.cells import PRIMARY_ARMS, ScoredCells
from loopscope.numerics.verdict.decision import PRIMARY, Decision, VerdictRules, decide
from loopscope.numerics.verdict.evidence import evidence_of
from loopscope.numerics.verdict.fairness import BesidePrompt, budget_errors, prompt_fairness
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.stopping import check_stopping
from loopscope.reports.verification.texts import MODEL
from loopscope.specs.artifacts.gate import Directions
from loopscope.specs.artifacts.mapping import DIRECTIONS, DIRECTIONS_VECTORS
from loopscope.specs.artifacts.steering import ARMS, NEUTRAL_TEXT, SAMPLES, SCORES, VERDICT
from loopscope.specs.artifacts.verdict import ContrastRecord, Verdict
from loopscope.specs.artifacts.verdict import Decision as Records
from loopscope.views.scored_cells import scored_cells
from loopscope.views.tensors import read_tensors

RATES = "arms: rates with intervals"
MEANS = "arms: means and medians of outcomes, tokens, KL"
BUDGETS = "verdict: error of the budgets"
CONTRASTS = "verdict: contrasts with intervals and p"
SECONDARY = "verdict: further outcomes (Holm)"
ASSAY = "verdict: assay, power and the system prompt"
COSINES = "verdict: cosines of the arms' vectors"
WORD = "verdict: word, its p and its reason"
METRICS = "verdict: numbers of the manifest"
_METRICS = (
    "verdict", "reason", "contrast", "estimate", "low", "high", "n", "n_needed", "samples_needed",
)  # fmt: skip
_FIXED = ("concept", "perplexity")


def check_steering(bundle: OpenBundle, findings: Findings) -> None:
    """Compute the arms' rates and the verdict again from the scores of the texts."""
    scores, arms, verdict = bundle.table(SCORES), bundle.table(ARMS), bundle.document(VERDICT)
    if verdict is None or scores is None or arms is None:
        return
    with findings.part(WORD, VERDICT.name):
        run = run_of(bundle, scores)
        with findings.part(RATES, ARMS.name):
            _check_arms(bundle, run, arms, findings)
        errors = _check_budgets(bundle, run, verdict, findings)
        rules = VerdictRules(
            bundle.experiment["steering"]["minDifference"],
            bundle.experiment["steering"]["maxArmCosine"],
        )
        evidence = evidence_of(run, verdict["arm_cosines"], verdict["missing"], errors)
        decision = decide(evidence, rules)
        check_decision(decision, rules, verdict, findings)
        check_stopping(bundle, run, rules, verdict, findings)
        _check_prompt(run, verdict, findings)
        _check_cosines(bundle, verdict, findings)
        _check_anchor(bundle, verdict, findings)
        _check_metrics(bundle, arms, verdict, findings)
    findings.leave_out("KL on neutral texts, and lengths of vectors", MODEL)
    findings.leave_out("change of latents on fixed text, tokens that were steered", MODEL)
    findings.leave_out("likeliest next tokens", MODEL)
    findings.leave_out("the probe's own quality", MODEL)
    findings.leave_out(f"why an arm is missing from {VERDICT.name}", "it is words")
    findings.leave_out("cosines of controls", "their vectors are not in a bundle")


def run_of(bundle: OpenBundle, scores: pandas.DataFrame) -> ScoredCells:
    """Return the scores of a bundle's steering by its cells."""
    run = scored_cells(scores, bundle.spec("steering"), bundle.table(NEUTRAL_TEXT))
    outcomes = {name: values for name, values in run.outcomes.items() if name != "perplexity"}
    outcomes["log_perplexity"] = np.log(run.outcomes["perplexity"])
    return replace(run, outcomes=outcomes)


def _check_arms(
    bundle: OpenBundle, run: ScoredCells, arms: pandas.DataFrame, findings: Findings
) -> None:
    named = list(zip(arms["arm"], arms["strength"], strict=True))
    findings.same(RATES, "cells", [list(one) for one in named], [list(one) for one in run.cells])
    if len(named) != len(run.cells):
        return
    intervals = [rate_interval(values, group=run.group) for values in run.outcomes["concept"]]
    rates = {
        "n": np.array([values.size for values in run.outcomes["concept"]]),
        "concept_rate": np.array([values.mean() for values in run.outcomes["concept"]]),
        "concept_low": np.array([low for low, _ in intervals]),
        "concept_high": np.array([high for _, high in intervals]),
    }
    for name, column in rates.items():
        findings.column(RATES, name, arms[name].to_numpy(), column)
    perplexity = [_known(np.exp(values), np.median) for values in run.outcomes["log_perplexity"]]
    findings.column(
        MEANS, "median_perplexity", arms["median_perplexity"].to_numpy(), np.array(perplexity)
    )
    for name, values in run.outcomes.items():
        if name in arms and name not in _FIXED:
            means = np.array([_known(own, np.mean) for own in values])
            findings.column(MEANS, name, arms[name].to_numpy(), means)
    if bundle.table(NEUTRAL_TEXT) is not None:
        findings.column(MEANS, "kl", arms["kl"].to_numpy(), run.kl.mean(axis=1))
    by_cell = arms.set_index(["arm", "strength"])["kl"]
    scores = bundle.table(SCORES)
    assert scores is not None, "a run was made of them"
    of_rows = by_cell.loc[list(zip(scores["arm"], scores["strength"], strict=True))].to_numpy()
    findings.column(MEANS, "kl of each text", scores["kl"].to_numpy(), of_rows)
    samples = bundle.table(SAMPLES)
    if samples is not None and "generated_tokens" in arms:
        length = samples["tokens"].map(len)
        counts = length.groupby([samples["arm"], samples["strength"]]).sum()
        tokens = np.array([counts.loc[cell] for cell in named])
        findings.column(MEANS, "generated_tokens", arms["generated_tokens"].to_numpy(), tokens)


def _known(values: Any, summary: Any) -> float:
    known = values[~np.isnan(values)]
    return float(summary(known)) if known.size else float("nan")


def _check_budgets(
    bundle: OpenBundle, run: ScoredCells, verdict: Verdict, findings: Findings
) -> Mapping[str, BudgetError]:
    """Return the errors of the budgets: computed again where each neutral text's KL is known."""
    recorded = verdict["budget"]
    if bundle.table(NEUTRAL_TEXT) is None:
        findings.leave_out("error of the budgets", f"{NEUTRAL_TEXT.name} is not in this bundle")
        told = recorded["errors"] if recorded is not None else []
        return {
            one["contrast"]: BudgetError(float("nan"), float("nan"), one["shared_sd"])
            for one in told
            if one["shared_sd"] is not None
        }
    errors = budget_errors(run)
    findings.same(BUDGETS, "budget", recorded is not None, run.budget is not None)
    if recorded is not None and run.budget is not None:
        unit = bundle.experiment["steering"]["strengthUnit"]
        findings.same(BUDGETS, "unit", recorded["unit"], unit)
        findings.same(BUDGETS, "texts", recorded["texts"], run.budget.shape[1])
        told_errors = {one["contrast"]: one for one in recorded["errors"]}
        findings.same(BUDGETS, "contrasts", sorted(told_errors), sorted(errors))
        for name, error in errors.items():
            for key in ("log_ratio_sd", "slope", "shared_sd"):
                told_one = dict(told_errors[name])[key]
                findings.same(BUDGETS, f"{name}.{key}", told_one, getattr(error, key))
    return errors


def check_decision(
    decision: Decision, rules: VerdictRules, verdict: Records, findings: Findings
) -> None:
    """Compare a verdict with the one that was computed again."""
    judgement, design = decision.judgement, decision.design
    binding = judgement.binding
    findings.same(WORD, "verdict", verdict["verdict"], judgement.verdict)
    findings.same(WORD, "reason", verdict["reason"], judgement.reason)
    findings.same(WORD, "min_difference", verdict["min_difference"], rules.min_difference)
    findings.same(WORD, "max_arm_cosine", verdict["max_arm_cosine"], rules.max_arm_cosine)
    findings.same(WORD, "p", verdict["p"] is None, judgement.p is None)
    if judgement.p is not None and verdict["p"] is not None:
        for name, value in verdict["p"].items():
            findings.same(WORD, f"p.{name}", value, getattr(judgement.p, name))
    for name in ("contrast", "estimate", "low", "high"):
        told = None if binding is None else getattr(binding, name)
        findings.same(WORD, name, dict(verdict)[name], told)
    iut = decision.p_intersection_union
    findings.same(WORD, "p_intersection_union", verdict["p_intersection_union"], iut)
    _check_contrasts("contrasts", verdict["contrasts"], decision.contrasts, CONTRASTS, findings)
    _check_contrasts("intact", verdict["intact"], list(judgement.intact), CONTRASTS, findings)
    secondary = [one.contrast for one in decision.secondary]
    _check_contrasts("secondary", verdict["secondary"], secondary, SECONDARY, findings)
    for place, (told, found) in enumerate(
        zip(verdict["secondary"], decision.secondary, strict=False)
    ):
        findings.same(SECONDARY, f"secondary[{place}].outcome", told["outcome"], found.outcome)
        findings.same(SECONDARY, f"secondary[{place}].p_holm", told["p_holm"], found.p_holm)
    findings.same(ASSAY, "n_needed", verdict["n_needed"], design and design.openings)
    findings.same(ASSAY, "samples_needed", verdict["samples_needed"], design and design.samples)
    for name in ("share_within_openings", "detectable_difference"):
        findings.same(ASSAY, name, dict(verdict)[name], getattr(decision, name))
    assay, told_assay = judgement.assay, verdict["assay"]
    findings.same(ASSAY, "assay", told_assay is None, assay is None)
    if assay is not None and told_assay is not None:
        findings.same(ASSAY, "assay.arm", told_assay["arm"], assay.arm)
        findings.same(ASSAY, "assay.rate", told_assay["rate"], assay.rate)
        findings.same(ASSAY, "assay.doubt", told_assay["doubt"], assay.doubt or None)
        _check_contrast("assay.effect", told_assay["effect"], assay.effect, ASSAY, findings)


def _check_contrasts(
    place: str,
    recorded: Any,
    computed: list[Contrast],
    check: str,
    findings: Findings,
) -> None:
    findings.same(check, f"{place}, length", len(recorded), len(computed))
    for number, (told, found) in enumerate(zip(recorded, computed, strict=False)):
        _check_contrast(f"{place}[{number}]", told, found, check, findings)


def _check_contrast(
    place: str, recorded: ContrastRecord, computed: Contrast, check: str, findings: Findings
) -> None:
    for name in ContrastRecord.__annotations__:
        told = dict(recorded)[name]
        findings.same(check, f"{place}.{name}", told, getattr(computed, name))


def _check_prompt(run: ScoredCells, verdict: Verdict, findings: Findings) -> None:
    found, told = prompt_fairness(run), verdict["system_prompt"]
    findings.same(ASSAY, "system_prompt", told is None, found is None)
    if found is None or told is None:
        return
    findings.same(ASSAY, "system_prompt.kl", told["kl"], found.kl)
    findings.same(ASSAY, "system_prompt.placebo_kl", told["placebo_kl"], found.placebo_kl)
    _check_maybe("system_prompt.placebo", told["placebo"], found.placebo, findings)
    findings.same(ASSAY, "system_prompt.arms", len(told["arms"]), len(found.arms))
    for own, beside in zip(told["arms"], found.arms, strict=False):
        _check_beside(own, beside, findings)


def _check_beside(recorded: Any, computed: BesidePrompt, findings: Findings) -> None:
    place = f"system_prompt.{computed.arm}"
    for name in ("arm", "rate", "reason"):
        findings.same(ASSAY, f"{place}.{name}", recorded[name], getattr(computed, name))
    _check_maybe(f"{place}.contrast", recorded["contrast"], computed.contrast, findings)


def _check_maybe(
    place: str, recorded: ContrastRecord | None, computed: Contrast | None, findings: Findings
) -> None:
    findings.same(ASSAY, place, recorded is None, computed is None)
    if recorded is not None and computed is not None:
        _check_contrast(place, recorded, computed, ASSAY, findings)


def _check_cosines(bundle: OpenBundle, verdict: Verdict, findings: Findings) -> None:
    """Compare the cosines of the arms whose vectors a bundle holds, and what made them."""
    path = bundle.folder / DIRECTIONS_VECTORS.name
    described: Directions | None = bundle.document(DIRECTIONS)
    if not path.is_file() or described is None:
        return
    vectors = {
        name: vector.astype(np.float64)
        for name, vector in read_tensors(path).items()
        if name in described["arms"]
    }
    findings.same(COSINES, "vectors", sorted(vectors), sorted(described["arms"]))
    if {"coarse", "fine", "multi"} <= set(vectors):
        total = vectors["coarse"] + vectors["fine"]
        whole = float(vectors["multi"] @ total / np.linalg.norm(total))
        findings.same(COSINES, "multi along coarse + fine", round(whole, 5), 1.0)
    steered = [arm for arm in PRIMARY_ARMS if arm in vectors and arm in bundle.arms_steered()]
    for place, one in enumerate(steered):
        length = float(np.linalg.norm(vectors[one]))
        findings.same(COSINES, f"length of {one}", round(length, 5), 1.0)
        for other in steered[place + 1 :]:
            found = float(vectors[one] @ vectors[other])
            told = {**_turned(verdict["arm_cosines"]), **verdict["arm_cosines"]}
            findings.same(COSINES, f"{one}~{other}", told.get(f"{one}~{other}"), found)


def _check_anchor(bundle: OpenBundle, verdict: Verdict, findings: Findings) -> None:
    described = bundle.document(DIRECTIONS)
    if described is None:
        return
    latent = described["anchor"]
    found = None if latent is None else {"latent": latent, "children": len(described["children"])}
    findings.same(ASSAY, "anchor", verdict["anchor"], found)


def _turned(cosines: Mapping[str, float]) -> dict[str, float]:
    return {"~".join(reversed(pair.split("~"))): value for pair, value in cosines.items()}


def _check_metrics(
    bundle: OpenBundle, arms: pandas.DataFrame, verdict: Verdict, findings: Findings
) -> None:
    manifest = bundle.manifest("steering")
    if manifest is None:
        return
    metrics = manifest["metrics"]
    for name in _METRICS:
        findings.same(METRICS, name, metrics[name], dict(verdict)[name])
    if verdict["p"] is not None:
        findings.same(METRICS, "p", metrics["p"], verdict["p"])
        primary = {f"{a}-{b}" for a, b in PRIMARY}
        told = {one["contrast"]: one for one in verdict["contrasts"] if one["contrast"] in primary}
        for name, one in told.items():
            for key in ("estimate", "low", "high"):
                recorded = metrics["primary"][name][key]
                findings.same(METRICS, f"primary.{name}.{key}", recorded, dict(one)[key])
    for arm, strength, prefix in (
        ("none", 0.0, "unsteered"),
        (metrics.get("best_arm"), metrics.get("best_strength"), "best"),
    ):
        own = arms[(arms["arm"] == arm) & (arms["strength"] == strength)]
        if f"{prefix}_concept_rate" in metrics and len(own) == 1:
            for key in ("concept_rate", "median_perplexity"):
                recorded = metrics[f"{prefix}_{key}"]
                findings.same(METRICS, f"{prefix}_{key}", recorded, float(own[key].iloc[0]))
    steered = arms[arms["arm"].isin(PRIMARY_ARMS)]
    if "best_concept_rate" in metrics:
        most = float(steered["concept_rate"].max())
        findings.same(METRICS, "best of all", metrics["best_concept_rate"], most)
