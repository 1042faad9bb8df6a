"""Robustness: what arms did under other rules, from the scores that the bundle holds of them."""

from __future__ import annotations

from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.steering import SCORES
from loopscope.views.robustness import DECLARED, declared_scores, of_texts

RATES = "robustness: rates, effects and wrong ways of the arms"
OWN = "robustness: the scores of the declared run"


def check_robustness(bundle: OpenBundle, findings: Findings) -> None:
    """Compute the panel from its scores, and the declared run's scores from the steering's."""
    told, texts = bundle.table(ROBUSTNESS), bundle.table(ROBUSTNESS_TEXTS)
    scores = bundle.table(SCORES)
    if told is None or texts is None or scores is None:
        return
    with findings.part(RATES, ROBUSTNESS.name):
        found = of_texts(texts).arms
        findings.same(RATES, "columns", list(told), list(found))
        for name in found:
            findings.column(RATES, str(name), told[name].to_numpy(), found[name].to_numpy())
    with findings.part(OWN, ROBUSTNESS_TEXTS.name):
        own = texts[texts["axis"] == DECLARED]
        expected = declared_scores(scores, bundle.spec("steering"))
        for name in expected:
            recorded = own[name].astype(object).where(own[name].notna(), None)
            computed = expected[name].astype(object).where(expected[name].notna(), None)
            findings.column(OWN, str(name), recorded.to_numpy(), computed.to_numpy())
    findings.leave_out(
        f"scores of other runs in {ROBUSTNESS_TEXTS.name}",
        "they rest on experiments beside this one",
    )
