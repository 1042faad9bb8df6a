"""The verdict as it stands in ``verdict.json``; what is not known is None, never 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loopscope.numerics.statistics.paired import Contrast
from loopscope.numerics.verdict.decision import Assay, Decision, Evidence, VerdictRules, decide
from loopscope.numerics.verdict.looks import Look
from loopscope.numerics.verdict.sequential import WordE
from loopscope.numerics.verdict.words import WordP
from loopscope.specs.artifacts import verdict as records


def decision_record(
    evidence: Evidence, rules: VerdictRules, decided: Decision | None = None
) -> records.Decision:
    """Return what is decided, with the evidence and the rules that it rests on."""
    decision = decided or decide(evidence, rules)
    judgement, design = decision.judgement, decision.design
    binding = judgement.binding
    return {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "contrast": binding.contrast if binding else None,
        "estimate": binding.estimate if binding else None,
        "low": binding.low if binding else None,
        "high": binding.high if binding else None,
        "p": _word_p_record(judgement.p) if judgement.p else None,
        "p_intersection_union": decision.p_intersection_union,
        "n": max((len(values) for values in evidence.concept.values()), default=0),
        "n_needed": design.openings if design else None,
        "samples_needed": design.samples if design else None,
        "share_within_openings": decision.share_within_openings,
        "detectable_difference": _known(decision.detectable_difference),
        "min_difference": rules.min_difference,
        "max_arm_cosine": rules.max_arm_cosine,
        "arm_cosines": dict(sorted(evidence.arm_cosines.items())),
        "assay": _assay_record(judgement.assay) if judgement.assay else None,
        "contrasts": [contrast_record(contrast) for contrast in decision.contrasts],
        "intact": [contrast_record(contrast) for contrast in judgement.intact],
        "secondary": [
            {"outcome": one.outcome, **contrast_record(one.contrast), "p_holm": one.p_holm}
            for one in decision.secondary
        ],
        "missing": dict(sorted(evidence.missing.items())),
    }


def stopping_record(declared: int, looks: Sequence[Look]) -> records.StoppingRecord:
    """Return what each look said, of a run that might have steered the ``declared`` openings."""
    return {
        "declared": declared,
        "looks": [
            {
                "openings": one.openings,
                "verdict": one.verdict,
                "e": None if one.bets is None else _word_e_record(one.bets),
            }
            for one in looks
        ],
    }


def contrast_record(contrast: Contrast) -> records.ContrastRecord:
    """Return a contrast for JSON."""
    return {
        "contrast": contrast.contrast,
        "estimate": contrast.estimate,
        "low": _known(contrast.low),
        "high": _known(contrast.high),
        "low_90": _known(contrast.low_90),
        "high_90": _known(contrast.high_90),
        "n": contrast.n,
        "groups": contrast.groups,
        "sd": _known(contrast.sd),
        "shared_sd": _known(contrast.shared_sd),
        "p_greater": _known(contrast.p_greater),
        "p_less": _known(contrast.p_less),
        "p_above_zero": _known(contrast.p_above_zero),
        "p_below_zero": _known(contrast.p_below_zero),
        "p_above_margin": _known(contrast.p_above_margin),
        "p_below_margin": _known(contrast.p_below_margin),
        "p_two_sided": contrast.p_two_sided,
    }


def _word_p_record(p: WordP) -> records.WordsP:
    return {"supported": p.supported, "refuted": p.refuted, "no_difference": p.no_difference}


def _word_e_record(e: WordE) -> records.WordsE:
    return {"supported": e.supported, "refuted": e.refuted, "no_difference": e.no_difference}


def _assay_record(assay: Assay) -> records.Assay:
    return {
        "arm": assay.arm,
        "rate": assay.rate,
        "effect": contrast_record(assay.effect),
        "doubt": assay.doubt or None,
    }


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
