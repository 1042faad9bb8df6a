"""The verdict on steering, from paired contrasts over openings.

"Better" means that the multi arm beats coarse *and* beats fine: an intersection-union test
(Berger 1982), which needs no correction. So every answer is about one quantity: multi minus the
better single resolution, the smaller of the two contrasts. An answer needs a working assay: a
single arm that moves the score, and room above it. A null result is a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.statistics.paired import (
    Compared,
    Contrast,
    compared,
    detectable_difference,
)
from loopscope.numerics.statistics.power import (
    OPENINGS_MAX,
    Design,
    cheapest_design,
    split_variance,
)
from loopscope.numerics.verdict.known import contrast_over_known
from loopscope.numerics.verdict.sequential import (
    WordE,
    at_any_time,
    group_differences,
    word_so_far,
)
from loopscope.numerics.verdict.words import LEVEL_ONE_SIDED, WordP, word_of, word_p

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PRIMARY = (("multi", "coarse"), ("multi", "fine"))
SINGLE = ("coarse", "fine")

Scores = Mapping[str, Floats]
"""Arm to its scores [openings, samples]; every arm has the same openings in the same order."""


@dataclass(frozen=True)
class Evidence:
    """What a run measured, before any verdict on it.

    ``concept`` are concept scores; an entry is the mean over the strengths that all primary arms
    reached, of which there are ``strengths``. ``intact`` [openings] are each arm's rates among
    texts that are not degenerate, NaN where an opening has none; ``arm_cosines`` maps
    ``"coarse~multi"`` to the cosine of two arms' vectors, ``missing`` an arm that could not be
    built to the reason. ``group`` [openings] numbers the openings that belong together,
    ``turn`` [openings] is their place in the order in which they were looked at (None: in none),
    ``shared_sd`` maps a contrast to the standard deviation that the error of the arms' budgets
    gives it, ``secondary`` further outcomes to their scores [openings] (NaN where unknown).
    """

    concept: Scores
    arm_cosines: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict)
    strengths: int = 1
    intact: Scores | None = None
    group: Integers | None = None
    turn: Integers | None = None
    shared_sd: Mapping[str, float] = field(default_factory=dict)
    secondary: Mapping[str, Scores] = field(default_factory=dict)

    def means(self, arm: str) -> Floats:
        """Return an arm's concept score of each opening."""
        return np.asarray(self.concept[arm].mean(axis=1), dtype=np.float64)

    def contrast(self, first: str, second: str, margin: float | None = None) -> Contrast:
        """Return the contrast of two arms' concept scores (see ``paired_contrast``)."""
        name = f"{first}-{second}"
        if name not in self._compared:
            self._compared[name] = compared(
                name,
                self.means(first),
                self.means(second),
                group=self.group,
                shared_sd=self.shared_sd.get(name, 0.0),
                unit=1.0 / (self.concept[first].shape[1] * self.strengths),
            )
        found = self._compared[name]
        return found.contrast if margin is None else found.at(margin)

    @cached_property
    def _compared(self) -> dict[str, Compared]:
        """What was compared, kept: fifty margins are asked of the same scores."""
        return {}

    def differences_in_turn(self, first: str, second: str) -> Floats:
        """Return the differences of two arms [units] in the order in which they were looked at.

        A group is one unit. Raises ValueError where nobody looked.
        """
        if self.turn is None:
            raise ValueError("all openings were scored before anybody looked")
        order = np.argsort(self.turn)
        group = None if self.group is None else self.group[order]
        return group_differences((self.means(first) - self.means(second))[order], group)

    @cached_property
    def intact_contrasts(self) -> tuple[Contrast, ...]:
        """The primary contrasts over the openings where both arms wrote intact texts.

        The error of the budgets moves them as it moves the contrasts over all texts.
        """
        if self.intact is None:
            return ()
        found = (
            contrast_over_known(
                f"{a}-{b}",
                self.intact,
                a,
                b,
                self.group,
                span=1.0,
                shared_sd=self.shared_sd.get(f"{a}-{b}", 0.0),
            )
            for a, b in PRIMARY
        )
        return tuple(contrast for contrast in found if contrast is not None)


@dataclass(frozen=True)
class VerdictRules:
    """The declared limits: the smallest practical difference, the largest cosine of two arms."""

    min_difference: float
    max_arm_cosine: float


@dataclass(frozen=True)
class Assay:
    """Whether the run could have shown a difference; ``doubt`` is empty where it could.

    ``arm`` is the better single arm, ``rate`` its concept rate, ``effect`` its contrast with
    unsteered text.
    """

    arm: str
    rate: float
    effect: Contrast
    doubt: str


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reason and what it rests on.

    ``primary`` are the contrasts with the single resolutions, ``intact`` the same among texts that
    are not degenerate, ``binding`` the smaller primary one (None where an arm is missing), ``p``
    the p of each word, None where nothing is testable. ``bets`` are the e-values of who looked
    early; each p is at least 1/e then, and None where nobody did.
    """

    verdict: str
    reason: str
    primary: tuple[Contrast, ...]
    intact: tuple[Contrast, ...]
    binding: Contrast | None
    assay: Assay | None
    p: WordP | None
    bets: WordE | None = None


@dataclass(frozen=True)
class SecondaryContrast:
    """A contrast of a further outcome; ``p_holm`` is corrected over all of them."""

    outcome: str
    contrast: Contrast
    p_holm: float


@dataclass(frozen=True)
class Decision:
    """A judgement with the facts reported beside it; its reason names the larger run, too.

    ``design`` is the cheapest run that would detect the smallest practical difference, where this
    one was inconclusive; ``share_within_openings`` the part of the variance that more samples would
    lessen. What rests on the binding contrast is None without one.
    """

    judgement: Judgement
    p_intersection_union: float | None
    design: Design | None
    share_within_openings: float | None
    detectable_difference: float | None
    contrasts: list[Contrast]
    secondary: list[SecondaryContrast]


def judge(evidence: Evidence, rules: VerdictRules) -> Judgement:
    """Return the verdict alone: no contrast that it does not need, no design of a larger run."""
    primary = _primary(evidence, rules)
    binding = min(primary, key=lambda c: c.estimate) if len(primary) == len(PRIMARY) else None
    assay = _assay(evidence, rules)
    intact = evidence.intact_contrasts
    verdict, reason = _untestable(evidence, rules, assay)
    p, bets = None, None
    if not verdict:
        assert binding is not None, "all arms are there"
        doubt = _rests_on_degenerate_texts(evidence, intact)
        bets = _bets(evidence, rules)
        verdict, reason = _judge(primary, binding, rules.min_difference, doubt, bets)
        fixed = word_p(primary, intact if evidence.intact is not None else None)
        p = bets.held_against(fixed) if bets is not None else fixed
    return Judgement(verdict, reason, primary, intact, binding, assay, p, bets)


def _primary(evidence: Evidence, rules: VerdictRules) -> tuple[Contrast, ...]:
    """Return multi minus each single arm that is there; who looked early gets other intervals."""
    found = (
        (a, b, evidence.contrast(a, b, rules.min_difference))
        for a, b in PRIMARY
        if {a, b} <= set(evidence.concept)
    )
    if evidence.turn is None:
        return tuple(contrast for _, _, contrast in found)
    return tuple(at_any_time(one, evidence.differences_in_turn(a, b)) for a, b, one in found)


def _bets(evidence: Evidence, rules: VerdictRules) -> WordE | None:
    """Return the e-values of the words by now, None where all was scored before anybody looked."""
    if evidence.turn is None:
        return None
    coarse, fine = (evidence.differences_in_turn(a, b) for a, b in PRIMARY)
    return word_so_far(coarse, fine, rules.min_difference)


def decide(evidence: Evidence, rules: VerdictRules) -> Decision:
    """Return the verdict with every contrast beside it, and what a larger run would need."""
    judgement = judge(evidence, rules)
    binding, reason = judgement.binding, judgement.reason
    design, share_within = None, None
    if binding is not None and binding.n > 1:
        differences = np.stack([evidence.concept[a] - evidence.concept[b] for a, b in PRIMARY])
        share_within = split_variance(differences).share_within
        if judgement.verdict == "Inconclusive":
            design = cheapest_design(differences, rules.min_difference)
            reason = f"{reason}{_need(binding, design, rules.min_difference)}"
    return Decision(
        judgement=replace(judgement, reason=reason),
        p_intersection_union=_intersection_union_p(judgement.primary) if binding else None,
        design=design,
        share_within_openings=share_within,
        detectable_difference=detectable_difference(binding) if binding else None,
        contrasts=_contrasts(evidence, judgement),
        secondary=_secondary(evidence),
    )


def _contrasts(evidence: Evidence, judgement: Judgement) -> list[Contrast]:
    """Return multi against every arm, and the single arms against unsteered text."""
    known = {contrast.contrast: contrast for contrast in judgement.primary}
    if judgement.assay is not None:
        known[judgement.assay.effect.contrast] = judgement.assay.effect
    others = sorted(set(evidence.concept) - {"multi", "none", *SINGLE})
    pairs = (*PRIMARY, *(("multi", other) for other in others), *((arm, "none") for arm in SINGLE))
    return [
        known.get(f"{a}-{b}") or evidence.contrast(a, b)
        for a, b in pairs
        if {a, b} <= set(evidence.concept)
    ]


def _assay(evidence: Evidence, rules: VerdictRules) -> Assay | None:
    """Return what the single arms did, None where one of them or unsteered text is missing."""
    if not {*SINGLE, "none"} <= set(evidence.concept):
        return None
    arm = max(SINGLE, key=lambda name: float(evidence.means(name).mean()))
    rate = float(evidence.means(arm).mean())
    effect = evidence.contrast(arm, "none")
    doubt = ""
    if not effect.low > 0:
        doubt = (
            f"no single arm surely moved the score: {arm}-none {_numbers(effect)} reaches 0; use "
            "more openings or samples, a larger strength, or another anchor or lexicon"
        )
    elif rate > 1 - rules.min_difference:
        doubt = (
            f"no headroom: {arm} alone reaches {rate:.2f}, above 1 - minDifference "
            f"({1 - rules.min_difference:.2f}); use a smaller strength or a stricter lexicon"
        )
    return Assay(arm, rate, effect, doubt)


def _untestable(evidence: Evidence, rules: VerdictRules, assay: Assay | None) -> tuple[str, str]:
    """Return ``NotTestable`` with the reason, or two empty strings."""
    absent = [arm for arm in (*SINGLE, "multi") if arm not in evidence.concept]
    if absent:
        why = "; ".join(
            f"{arm}: {evidence.missing.get(arm, 'not among the arms')}" for arm in absent
        )
        return "NotTestable", f"the contrast needs coarse, fine and multi ({why})"
    for pair in ("coarse~multi", "fine~multi"):
        cosine = evidence.arm_cosines.get(pair)
        if cosine is None:
            return "NotTestable", f"the cosine {pair} is not known"
        if cosine > rules.max_arm_cosine:
            return (
                "NotTestable",
                f"the vectors {pair} have cosine {cosine:.3f}, above {rules.max_arm_cosine:g}: "
                "they are the same intervention",
            )
    if assay is None:
        return "NotTestable", "without the arm none nobody knows whether steering did anything"
    return ("NotTestable", assay.doubt) if assay.doubt else ("", "")


def _judge(
    primary: Sequence[Contrast],
    binding: Contrast,
    min_difference: float,
    doubt: str = "",
    bets: WordE | None = None,
) -> tuple[str, str]:
    """Return verdict and reason. A verdict needs agreement of the interval and the sign-flip test.

    ``doubt`` is what intact texts show, where they do not show a gain; ``bets`` must agree, where
    somebody looked early.
    """
    numbers = ", ".join(f"{c.contrast} {_numbers(c)}" for c in primary)
    seen = f"{numbers} over {binding.n} openings{f' ({bets.in_words})' if bets else ''}"
    fixed = word_p(primary)
    word = word_of(bets.held_against(fixed) if bets else fixed)
    if word == "Supported" and doubt:
        return (
            "Inconclusive",
            f"multi beats coarse and fine only when degenerate texts count: {seen}; {doubt}",
        )
    if word == "Supported":
        size = f", by less than {min_difference:g}" if binding.high < min_difference else ""
        p = "" if bets else f", p {_intersection_union_p(primary):.2g}"
        return word, f"multi beats coarse and fine{size}: {seen}{p}"
    if word == "Refuted":
        return word, f"multi is worse than a single resolution: {seen}"
    if word == "NoPracticalDifference":
        small = min(primary, key=lambda c: c.p_below_margin)
        return (
            word,
            f"multi is not better than the better single resolution by {min_difference:g} or more "
            f"({small.contrast} stays below that), nor worse than either by as much: {seen}",
        )
    return word, f"the data allow more than one answer: {seen}"


def _rests_on_degenerate_texts(evidence: Evidence, intact: Sequence[Contrast]) -> str:
    """Return what intact texts show instead of a gain over both arms; empty where they show it."""
    if evidence.intact is None:
        return ""
    if len(intact) < len(PRIMARY):
        return "there is no opening for which two arms both wrote an intact text"
    lost = [c for c in intact if c.p_gain > LEVEL_ONE_SIDED]
    why = ", ".join(f"{c.contrast} {_numbers(c)}" for c in lost)
    return f"among intact texts {why}" if why else ""


def _secondary(evidence: Evidence) -> list[SecondaryContrast]:
    """Return the primary contrasts of each further outcome, Holm-corrected over all of them."""
    found = [
        (outcome, contrast)
        for outcome, scores in sorted(evidence.secondary.items())
        for a, b in PRIMARY
        if (contrast := contrast_over_known(f"{a}-{b}", scores, a, b, evidence.group, span=None))
    ]
    adjusted = holm(np.array([contrast.p_two_sided for _, contrast in found], dtype=np.float64))
    return [
        SecondaryContrast(outcome, contrast, p)
        for (outcome, contrast), p in zip(found, adjusted.tolist(), strict=True)
    ]


def _intersection_union_p(primary: Sequence[Contrast]) -> float:
    return max(contrast.p_greater for contrast in primary)


def _need(binding: Contrast, design: Design | None, min_difference: float) -> str:
    if design is None:
        return f"; no number of openings up to {OPENINGS_MAX:,} would detect {min_difference:g}"
    samples = f"{design.samples} sample{'s' if design.samples > 1 else ''} each"
    text = (
        f"; {design.openings} openings with {samples} would detect {min_difference:g} with power "
        f"{design.power:.2f} at the spread seen"
    )
    if design.openings <= binding.n:
        text += (
            ", which this run offers already: what was seen is neither clearly different from 0 "
            f"nor clearly smaller than {min_difference:g}"
        )
    return text


def _numbers(contrast: Contrast) -> str:
    return f"{contrast.estimate:+.3f} [{contrast.low:+.3f}, {contrast.high:+.3f}]"
