"""The looks at a steering that might stop early: what each said, and where they had to end."""

from __future__ import annotations

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules
from loopscope.numerics.verdict.looks import Look, looks
from loopscope.reconcilers.steering import scored_openings
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.verdict import LookRecord, Verdict
from loopscope.specs.stopping import blocks_of
from loopscope.views.stopping import stopping_sentence

LOOKS = "verdict: looks, their e-values, and where they ended"


def check_stopping(
    bundle: OpenBundle,
    run: ScoredCells,
    rules: VerdictRules,
    verdict: Verdict,
    findings: Findings,
) -> None:
    """Compute every look again, and hold the number of openings against what the looks said."""
    spec, told = bundle.spec("steering"), verdict.get("stopping")
    rule = spec.get("stopEarly")
    if rule is None and told is None:
        return
    findings.same(LOOKS, "stopping", told is None, rule is None)
    if rule is None or told is None:
        return
    declared = scored_openings(spec)
    findings.same(LOOKS, "declared", told["declared"], len(declared))
    scored = run.outcomes["concept"].shape[1]
    blocks, ends = blocks_of(declared, rule, spec["sampling"]["seed"]), 0
    steered = []
    for block in blocks:
        if ends < scored:
            steered.append(block)
            ends += len(block)
    found = looks(run, steered, verdict["arm_cosines"], verdict["missing"], rules)
    findings.same(LOOKS, "looks", len(told["looks"]), len(found))
    for number, (one, own) in enumerate(zip(told["looks"], found, strict=False)):
        _check_look(f"looks[{number}]", one, own, findings)
    went_on = [not one.decides for one in found[:-1]]
    findings.same(LOOKS, "went on", went_on, [True] * len(went_on))
    if ends < len(declared):
        findings.same(LOOKS, "stopped", bool(found) and found[-1].decides, True)
    findings.ended = stopping_sentence(verdict)
    _check_metrics(bundle, verdict, findings)


def _check_look(place: str, told: LookRecord, found: Look, findings: Findings) -> None:
    findings.same(LOOKS, f"{place}.openings", told["openings"], found.openings)
    findings.same(LOOKS, f"{place}.verdict", told["verdict"], found.verdict)
    findings.same(LOOKS, f"{place}.e", told["e"] is None, found.bets is None)
    if told["e"] is not None and found.bets is not None:
        for word, e in told["e"].items():
            findings.same(LOOKS, f"{place}.e.{word}", e, getattr(found.bets, word))


def _check_metrics(bundle: OpenBundle, verdict: Verdict, findings: Findings) -> None:
    manifest = bundle.manifest("steering")
    if manifest is None:
        return
    told = verdict["stopping"]
    for name, own in (("n_declared", told["declared"]), ("looks", len(told["looks"]))):
        findings.same(LOOKS, name, manifest["metrics"][name], own)
