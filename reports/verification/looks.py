"""Looks at the verdict under other choices: those that the texts of the bundle answer."""

from __future__ import annotations

import pandas

from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.scoring import SCORING, TEXT_OUTCOMES
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.steering import NEUTRAL_TEXT, SAMPLES, SCORES, VERDICT
from loopscope.views.sensitivity.looks import Looks, SteeredTables, computed_looks

LOOKS = "sensitivity: the verdict under other choices, from the texts"
COMPUTED = ("declared", "same texts")


def check_looks(bundle: OpenBundle, findings: Findings) -> None:
    """Compute each look again that needs no other run."""
    recorded, verdict = bundle.table(SENSITIVITY), bundle.document(VERDICT)
    scores, samples = bundle.table(SCORES), bundle.table(SAMPLES)
    if recorded is None or verdict is None or scores is None or samples is None:
        return
    with findings.part(LOOKS, SENSITIVITY.name):
        scoring = bundle.document(SCORING) if not bundle.changed_rules("scoring") else None
        outcomes = bundle.table(TEXT_OUTCOMES) if scoring is not None else None
        tables = SteeredTables(
            scores,
            samples,
            bundle.table(NEUTRAL_TEXT),
            outcomes,
            scoring["primary"] if scoring is not None else None,
            verdict,
            bundle.spec("steering"),
        )
        computed = Looks(computed_looks(tables)).table()
        _compare(recorded[recorded["source"].isin(COMPUTED)], computed, findings)
    findings.leave_out(
        f"rows of {SENSITIVITY.name} from other runs", "they rest on experiments beside this one"
    )


def _compare(recorded: pandas.DataFrame, computed: pandas.DataFrame, findings: Findings) -> None:
    findings.same(LOOKS, "columns", list(recorded), list(computed))
    for name in computed:
        values = computed[name].astype(object).where(computed[name].notna(), None)
        told = recorded[name].astype(object).where(recorded[name].notna(), None)
        findings.column(LOOKS, str(name), told.to_numpy(), values.to_numpy())
