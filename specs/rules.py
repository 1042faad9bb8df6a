"""The declared rules of an experiment: selection, mapping, gate and steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loopscope.specs.chat import SteeredPositions, check_part
from loopscope.specs.fields import (
    Cosine,
    GroupedTexts,
    HookName,
    ListName,
    Share,
    Spec,
    Texts,
    Unit,
)
from loopscope.specs.lexicon import check_apart, check_free_of_words
from loopscope.specs.neutral import packaged_neutral_texts
from loopscope.specs.stopping import StopEarly

Arm = Literal[
    "none",
    "coarse",
    "fine",
    "multi",
    "coarsePair",
    "nonChildren",
    "randomLatent",
    "meanDifference",
    "random",
]
DEFAULT_ARMS: tuple[Arm, ...] = (
    "none",
    "coarse",
    "fine",
    "multi",
    "coarsePair",
    "nonChildren",
    "randomLatent",
    "meanDifference",
    "random",
)
"""Written out: an arm that is added some day changes no steering that does not ask for it."""
StrengthUnit = Literal[
    "nextTokenKl", "fluencyLoss", "centredResidualNorm", "residualNorm", "absolute"
]
SteeringMethod = Literal["add", "clamp"]
Strength = Annotated[float, Field(gt=0.0, le=1e6, strict=True)]
Selectivity = Annotated[float, Field(ge=-1.0, le=1.0), Unit("selectivity")]

SYSTEM_PROMPT_SEPARATOR = "\n"


class Selection(Spec):
    """A latent is a candidate when it fires on target, stays quiet on neutral, reliably."""

    min_selectivity: Selectivity = 0.8
    """Least (mean target - mean neutral) / (mean target + mean neutral)."""
    min_firing_rate_target: Annotated[Share, Unit("share of prompts")] = 0.3
    """Least share of target prompts on which the latent fires."""
    max_firing_rate_neutral: Annotated[Share, Unit("share of prompts")] = 0.2
    """Largest share of neutral prompts on which the latent fires."""
    max_q: Annotated[Share, Unit("q-value")] = 0.05
    """Largest Benjamini-Hochberg q of the Mann-Whitney test over prompts."""
    top: Annotated[int, Field(ge=1, le=1000), Unit("latents")] = 5
    """Keep this many candidates, by selectivity times target firing rate."""

    def candidates(self, table: Mapping[str, Sequence[float]]) -> list[int]:
        """Return the candidate latents of a feature table, best first.

        ``table`` has the columns of ``features.parquet``. Order: selectivity x target firing
        rate, falling; ties by latent number. A NaN q passes only where ``maxQ`` is 1: no test.
        """
        rows = zip(
            table["latent"],
            table["selectivity"],
            table["firing_rate_target"],
            table["firing_rate_neutral"],
            table["q_value"],
            strict=True,
        )
        passing = [
            (-selectivity * on_target, int(latent))
            for latent, selectivity, on_target, on_neutral, q in rows
            if selectivity >= self.min_selectivity
            and on_target >= self.min_firing_rate_target
            and on_neutral <= self.max_firing_rate_neutral
            and (q <= self.max_q or self.max_q == 1)
        ]
        return [latent for _, latent in sorted(passing)[: self.top]]

    def caution(self, row: Mapping[str, float]) -> str | None:
        """Return the evidence of hard negatives against a candidate; None if there is none.

        ``row`` has the columns of ``features.parquet``. The limits are those for neutral prompts.
        A caution changes no choice: hard negatives select nothing.
        """
        if "selectivity_hard_negative" not in row:
            return None
        rate, selectivity = row["firing_rate_hard_negative"], row["selectivity_hard_negative"]
        if rate <= self.max_firing_rate_neutral and selectivity >= self.min_selectivity:
            return None
        return (
            f"fires on {rate:.0%} of the hard negatives, selectivity against them "
            f"{selectivity:.2f}: it may answer to what they share with the target"
        )


class MappingRules(Spec):
    """When a fine latent belongs to a coarse one."""

    min_cosine: Cosine = 0.3
    """Least decoder cosine of a child."""
    partial_cosine: Cosine = 0.1
    """A correlated pair between this cosine and ``minCosine`` reads *partial*."""
    min_correlation: Annotated[Share, Unit("Pearson r")] = 0.2
    """Least Pearson correlation over prompts for the readings match, partial, co-occurring."""
    top_k: Annotated[int, Field(ge=1, le=1000), Unit("pairs")] = 10
    """Pairs kept per anchor: this many by cosine and this many by correlation."""
    permutations: Annotated[int, Field(ge=0, le=100_000), Unit("permutations")] = 1000
    """Permutations of the prompts, within condition and class of the last token, behind each
    edge's p; 0 tests nothing."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the permutations, and of what the gate draws."""
    anchor: Annotated[int, Field(ge=0), Unit("coarse latent")] | None = None
    """Steer this candidate in place of the one that the gate puts first. For a look at the others:
    an anchor that is chosen after texts were read is no choice made beforehand."""

    @model_validator(mode="after")
    def _ordered(self) -> MappingRules:
        if self.partial_cosine > self.min_cosine:
            raise ValueError(
                f"partialCosine ({self.partial_cosine}) must not exceed "
                f"minCosine ({self.min_cosine})"
            )
        return self


Range = Annotated[tuple[float, ...], Field(min_length=2, max_length=2)]


class Expected(Spec):
    """What a dictionary was measured to do on the calibration text; else nothing is believed."""

    l0: Range
    """Least and largest mean number of active latents per token."""
    fvu: Range
    """Least and largest fraction of variance unexplained."""

    @model_validator(mode="after")
    def _in_order(self) -> Expected:
        for name, (low, high) in (("l0", self.l0), ("fvu", self.fvu)):
            if not 0 <= low <= high:
                raise ValueError(f"{name} must be [low, high] with 0 <= low <= high")
        return self


class Gate(Spec):
    """GO when some candidate has enough fine latents, and all rank above matched anchors."""

    rule: Literal["cosine", "strict"] = "cosine"
    """``cosine``: children by decoder cosine alone. ``strict``: also correlated and selective."""
    min_subfeatures: Annotated[int, Field(ge=1, le=1000), Unit("fine latents")] = 3
    """Children that some candidate needs; of those that have them the best is steered."""
    min_fine_selectivity: Selectivity = 0.6
    """Least selectivity of a child under the strict rule."""
    null_anchors: Annotated[int, Field(ge=100, le=100_000), Unit("coarse latents")] = 500
    """Coarse latents that each candidate is ranked among: those that are no candidates and come
    nearest to it in rate over calibration text, decoder norm and density, at most a tenth of all
    that live or 100. With fewer than 100 in the dictionary the gate never says GO."""
    min_percentile: Annotated[float, Field(ge=50.0, lt=100.0), Unit("percentile")] = 95.0
    """Least percentile of the candidates' mean rank among matched anchors; also bounds how often
    a fine dictionary that knows nothing of the concept may reach the count."""
    resamples: Annotated[int, Field(ge=20, le=10_000), Unit("resamples")] = 200
    """Random halves of the prompts of each condition on which the gate is asked again."""
    min_stability: Annotated[Share, Unit("share of resamples")] = 0.8
    """Least share of the resamples that say the same, for GO and for NO-GO."""
    sensitivity: bool | None = None
    """``true``: the gate is also asked with other ``minCosine``, ``maxQ`` and, under ``strict``,
    ``minCorrelation``, in all combinations of a few values, so that the report can say what they
    would change. No answer depends on it; the mapping takes longer."""
    policy: Literal["report", "enforce"] = "report"
    """``report``: steering runs whatever the gate says; ``enforce``: only after GO."""


class EvidenceRules(Spec):
    """Which prompts show what the latents of a mapping fire on, token by token."""

    top_prompts: Annotated[int, Field(ge=1, le=100), Unit("prompts")] = 8
    """Of each latent, the prompts on which it fires most."""
    random_prompts: Annotated[int, Field(ge=0, le=100), Unit("prompts")] = 4
    """Of each latent, other prompts beside these, whether it fires there or not. They are drawn by
    the hash of their text, so all latents have nearly the same."""


class TraceRules(Spec):
    """Which texts of a steering are followed step by step."""

    openings: Annotated[int, Field(ge=1, le=20), Unit("openings")] = 3
    """The first scored openings: the vectors at the hook are kept for the first sample of each,
    under every arm at its weakest strength. All texts are cut into tokens, whatever stands here."""


Distance = Annotated[int, Field(ge=0, le=100_000)]
Temperature = Annotated[float, Field(gt=0.0, le=10.0)]


class DriftRules(Spec):
    """How far from an anchor it is looked for, and at which temperatures samples are drawn."""

    distances: Annotated[
        tuple[Distance, ...], Field(min_length=2, max_length=50), Unit("tokens")
    ] = (0, 16, 64, 128, 256, 512, 1000, 2000)
    """Tokens of neutral filler between the anchor and the opening, rising."""
    filler_text: Texts | None = None
    """Neutral texts that fillers are made of; by default the paragraphs and sentences that come
    with Loopscope, less those with a word of the lexicon."""
    fillers: Annotated[int, Field(ge=2, le=64), Unit("fillers")] = 8
    """Different fillers. Openings are dealt to them, and those that share one count as one unit:
    with fewer than eight no corrected test can say that anything fades."""
    arm: Arm | None = None
    """The steering's arm whose vector anchors; by default ``multi``, or ``coarse`` without it."""
    strength: Annotated[Strength, Unit("`strengthUnit`")] | None = None
    """One of the steering's strengths; by default the largest that the arm has."""
    temperatures: Annotated[tuple[Temperature, ...], Field(max_length=20)] = (0.3, 0.7, 1.0, 1.5)
    """Temperatures at which each anchor is sampled right after it; none leaves the grid out."""
    new_tokens: Annotated[int, Field(ge=1, le=512), Unit("tokens")] = 12
    """Tokens drawn of each sample."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the draws."""

    @model_validator(mode="after")
    def _rising(self) -> DriftRules:
        if list(self.distances) != sorted(set(self.distances)):
            raise ValueError("distances must rise, each given once")
        if len(set(self.temperatures)) != len(self.temperatures):
            raise ValueError("temperatures holds a value twice; keep one")
        if self.arm in ("none", "random"):
            raise ValueError(f"arm {self.arm} anchors nothing; name an arm with one vector")
        return self


class AblationRules(Spec):
    """On how many target prompts latents are taken out, and beside how many matched ones."""

    prompts: Annotated[int, Field(ge=8, le=10_000), Unit("prompts")] = 100
    """Target prompts that are read: the held-out ones where there are any, of more than this many
    those whose hash comes first."""
    draws: Annotated[int, Field(ge=1, le=100), Unit("sets")] = 5
    """Sets of matched latents of each sort, each ablated in the place of the concept's."""
    lexicon: Texts | None = None
    """Words of the concept; by default those of ``steering``."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the matched latents."""


class DamageRules(Spec):
    """What is tried under each arm and strength of a steering, beside what it is for."""

    text: Texts | None = None
    """Ordinary text on which the next token is predicted, at up to eight places of each; default:
    the packaged calibration text, less its lines with a word of the lexicon."""
    sides: Annotated[dict[ListName, Texts], Field(max_length=20)] | None = None
    """Word lists of other concepts, by name: in how many of the steered texts each shows up."""
    max_loss: Annotated[float, Field(gt=0.0, le=1.0), Unit("accuracy")] | None = None
    """The verdict is asked to hold (``holds``): at no strength may multi lose as much of the
    accuracy on ordinary text, or on the questions, with its whole 95 % interval."""


class Sampling(Spec):
    """How the next token is drawn. Equal draws for all arms of a prompt and sample."""

    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 0.8
    """Divides the logits."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000), Unit("tokens")] = 50
    """Keep the most likely tokens; 0 keeps all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0), Unit("probability")] = 1.0
    """Keep the smallest set of tokens with this much probability."""
    greedy: bool = False
    """Take the most likely token; the other fields are then without effect."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of all draws."""


class SteeringRules(Spec):
    """How generation is steered and scored."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = DEFAULT_ARMS
    """The directions to compare. Controls: ``coarsePair`` is the steered anchor and the next best
    one, ``nonChildren`` as many fine latents that are no anchor's children, ``randomLatent`` one
    coarse latent that is no anchor, ``meanDifference`` mean target minus mean neutral residual,
    ``random`` stands for ``randomDraws`` directions. A control that cannot be built is left out
    with the reason."""
    random_draws: Annotated[int, Field(ge=1, le=100), Unit("directions")] = 10
    """Random unit directions, each steered by itself; in contrasts they count as one arm."""
    system_prompt: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """Text put before each opening as one more arm, ``systemPrompt``, without any steering. In a
    chat it is the system message, behind ``chat.system`` if there is one."""
    system_prompt_separator: Annotated[str, Field(max_length=100)] = SYSTEM_PROMPT_SEPARATOR
    """What stands between the system prompt and the opening (in a chat, between ``chat.system`` and
    the system prompt); a line break by default. Without one the two run into each other, and the
    texts copy the fault."""
    placebo_prompt: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """Text about nothing in particular that stands before each opening as the arm
    ``placeboPrompt``, cut to (or repeated up to) as many tokens as the system prompt has; a
    packaged one by default. There is no such arm without ``systemPrompt``."""
    method: SteeringMethod = "add"
    """``add``: h + n u, with u the arm's unit vector and n its norm. ``clamp``: the dictionary
    latents that the arm is made of are set to what n u stands for, h + n u - sum of a(h) w over
    them (a a latent's activation, w its decoder row), so what they did before does not count and
    the dictionary's error stays. Arms without latents (``meanDifference``, ``random``) add."""
    positions: SteeredPositions = "all"
    """Which tokens are steered, never BOS. ``all``; ``opening``: all of the opening, none that is
    generated; ``generated``: those that a generated one is drawn after, from the opening's last on;
    ``assistant``: from the template's last on, so all that decides the assistant's words. One token
    of the opening and nothing else: ``last``, ``lastContent``, ``afterTemplate``, by its text or
    its number, as where prompts are read. Budgets and KL are measured with all tokens of the
    neutral texts steered, whatever stands here."""
    strength_unit: StrengthUnit = "nextTokenKl"
    """Unit of ``strengths``: nats of next-token KL on ``neutralText`` (each arm gets the norm that
    brings it: equal budgets), nats per token by which ``neutralText`` gets less likely under the
    steered model (``fluencyLoss``, an equal budget too), median norm of (h - mean h), median norm
    of h, or 1."""
    strengths: Annotated[
        tuple[Strength, ...], Field(min_length=1, max_length=50), Unit("`strengthUnit`")
    ] = (0.05, 0.1, 0.2)
    """Steering strengths in ``strengthUnit``; to be given with any unit but the default one."""
    samples_per_prompt: Annotated[int, Field(ge=1, le=1000), Unit("samples")] = 2
    """Samples per opening, arm and strength; from two on one sees how much an opening matters."""
    max_new_tokens: Annotated[int, Field(ge=1, le=2048), Unit("tokens")] = 24
    """Tokens generated after each opening."""
    sampling: Sampling = Sampling()
    """How tokens are drawn."""
    prompts: GroupedTexts
    """Openings to continue."""
    neutral_text: Texts | None = None
    """Fixed texts on which the next-token KL is measured, each at eight positions; by default the
    40 packaged paragraphs, less those with a word of the lexicon. Fewer texts make a larger error
    of the budgets, and the verdict's interval carries it."""
    lexicon: Texts
    """Words that mark a text as being about the concept; matched as whole words."""
    siblings: Texts | None = None
    """Words of sibling concepts (for France: Germany, Berlin), to tell a push towards the
    concept from a push towards its kind; leave out to go without *targetedness*."""
    probe_hook: HookName | None = None
    """Where the linear probe reads; by default the output of the block halfway between ``hook`` and
    the last one, where the steered dictionaries were not trained."""
    min_difference: Annotated[float, Field(gt=0.0, le=1.0), Unit("concept score")] = 0.15
    """Smallest difference in concept score that counts as practical."""
    max_arm_cosine: Cosine = 0.98
    """Above this cosine two arms' vectors are the same and the contrast is not testable."""
    stop_early: StopEarly | None = None
    """Steers the openings in blocks, looks after each, and stops where a word may be said by
    e-values, which hold at any number of looks; ``{}`` asks for it with its defaults."""

    @model_validator(mode="after")
    def _distinct(self) -> SteeringRules:
        for name, values in (("arms", self.arms), ("strengths", self.strengths)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} holds a value twice; keep one")
        if self.placebo_prompt is not None and self.system_prompt is None:
            raise ValueError("placeboPrompt belongs to systemPrompt, which is not given")
        where = self.prompts.file or "prompts"
        check_part(self.positions, self.prompts.texts, where, "opening")
        if self.strength_unit != "nextTokenKl" and "strengths" not in self.model_fields_set:
            raise ValueError(f"strengthUnit {self.strength_unit} needs strengths in that unit")
        return self

    @model_validator(mode="after")
    def _words_are_the_concepts_own(self) -> SteeringRules:
        """A word that is there before steering, or counts twice, would be scored for nothing."""
        words = self.lexicon.texts
        check_free_of_words(words, self.prompts.texts, "openings (prompts)")
        if self.neutral_text is None:
            packaged_neutral_texts(words)
        else:
            check_free_of_words(words, self.neutral_text.texts, "texts of neutralText")
        if self.placebo_prompt is not None:
            check_free_of_words(words, [self.placebo_prompt], "placebo prompts")
        if self.siblings is not None:
            check_apart(words, self.siblings.texts)
        return self
