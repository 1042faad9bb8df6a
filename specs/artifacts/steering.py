"""Files of a steering run: texts, their scores, the arms' rates, the verdict."""

from __future__ import annotations

from dataclasses import replace

from loopscope.specs.artifact_files import Column, Document, Table, alike
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.outcomes import OUTCOMES

_OPENING = Column("prompt_id", "text", "`opening-0000`, …, in the order of the openings")
_CELL = (
    Column(
        "arm",
        "text",
        "`none`, `systemPrompt`, `placeboPrompt`, `coarse`, `fine`, `multi`, the controls, "
        "`random-0`, …",
    ),
    Column(
        "strength",
        "float64",
        "how strong the intervention is; 0 for `none` and the prompts",
        "`strengthUnit`",
    ),
)
_KEYS = (_OPENING, *_CELL, Column("sample", "int32", "number of the sample"))
_CONCEPT = Column(
    "concept",
    "float64",
    "1 when the text holds a whole word of the lexicon (any case), else 0",
    "0 or 1",
)
_KL = Column(
    "kl",
    "float64",
    "next-token KL(clean ‖ steered) of the arm and strength, mean over the neutral texts, each at "
    "eight positions (all, where there are fewer); the same for every opening",
    "nats",
)
_OUTCOMES = (
    *(column for outcome in OUTCOMES.values() for column in outcome.columns),
    Column(
        "probe",
        "float64",
        "P(target) by a linear probe that reads the mean residual of the generated tokens at "
        "another hook",
        "0 to 1",
    ),
    Column(
        "target_latent",
        "float64",
        "mean activation of the steered anchor over the generated tokens; circular, since that "
        "dictionary made the direction",
        "activation",
    ),
    Column("distinct_2", "float64", "share of distinct pairs of consecutive tokens", "0 to 1"),
)

SAMPLES = Table(
    name="steering_samples.parquet",
    about="the texts that were generated",
    bundled="",
    columns=(
        *_KEYS,
        Column("text", "text", "the generated text, without the opening"),
        Column("tokens", "list of int32", "its token ids"),
    ),
)
SCORES = Table(
    name="steering_scores.parquet",
    about="every outcome of every text",
    bundled="",
    columns=(
        *_KEYS,
        _CONCEPT,
        *_OUTCOMES,
        Column(
            "perplexity",
            "float64",
            "exp(mean NLL) of the generated tokens under the unsteered model",
        ),
        _KL,
    ),
)
ARMS = Table(
    name="arms.parquet",
    about="one row an arm and strength: rates with their intervals, means of the outcomes",
    bundled="",
    columns=(
        *_CELL,
        Column("n", "int64", "how many texts", "texts"),
        *alike(
            ("concept_rate", "concept_low", "concept_high"),
            Column(
                "",
                "float64",
                "share of texts with a lexicon word, with Wilson's 95 % interval (openings are the "
                "clusters where each has several samples)",
                "0 to 1",
            ),
        ),
        Column("median_perplexity", "float64", "median over the texts"),
        replace(_KL, meaning="as in `steering_scores.parquet`"),
        Column(
            "norm",
            "float64",
            "length of the vector that is added to the residual stream (with `method: clamp` after "
            "its latents are ablated); 0 where none is",
            "residual stream",
        ),
        *(
            replace(outcome, meaning="mean of the outcome of the same name over the texts")
            for outcome in _OUTCOMES
        ),
        *alike(
            ("fixed_text_change_coarse", "fixed_text_change_fine"),
            Column(
                "",
                "float64",
                "Σ abs(a − b) / Σ b over the neutral texts' measured positions and all latents but "
                "anchors and their children, a the activations on the steered residual at the "
                "hook, b on the unsteered one; NaN where nothing fires",
            ),
        ),
        Column(
            "generated_tokens",
            "int64",
            "how many tokens were generated, over all texts, their ends not counted; this and the "
            "next two are missing in older artifacts",
            "tokens",
        ),
        Column(
            "steered_tokens",
            "int64",
            "of these, how many were drawn after a steered token, counted by the hook while "
            "decoding; fewer than all where `steering.positions` leaves some out",
            "tokens",
        ),
        Column(
            "steered_opening_tokens",
            "int64",
            "tokens of the openings that were steered, over all texts",
            "tokens",
        ),
    ),
)
NEUTRAL_TEXT = Table(
    name="neutral_text.parquet",
    about="what each arm and strength does to each neutral text",
    added=True,
    bundled="",
    columns=(
        *_CELL,
        Column(
            "number",
            "int32",
            "of the text, from 0 as in the spec, or among the packaged ones that were taken",
        ),
        Column(
            "kl",
            "float64",
            "mean KL(clean ‖ steered) over its measured positions; the mean over the texts is the "
            "`kl` of `arms.parquet`",
            "nats",
        ),
        Column(
            "budget",
            "float64",
            "what was made equal between arms (`nextTokenKl`: as `kl`); NaN for cells that are not "
            "steered, and where strengths are norms",
            "`strengthUnit`",
        ),
        Column("text", "text", "the text"),
    ),
)
DISTRIBUTION_SHIFT = Table(
    name="distribution_shift.parquet",
    about="the likeliest next tokens after each opening, before and after",
    bundled="",
    columns=(
        _OPENING,
        *_CELL,
        Column("token", "int64", "the token's number"),
        Column("text", "text", "the token's text"),
        Column(
            "probability_before", "float64", "in the unsteered model, after the opening", "0 to 1"
        ),
        Column("rank_before", "int64", "its rank there, from 1"),
        Column("probability_after", "float64", "with the intervention", "0 to 1"),
        Column("rank_after", "int64", "its rank there, from 1"),
        Column("new_arrival", "bool", "whether it came into the first ten from outside"),
    ),
)
VERDICT = Document(
    name="verdict.json", about="the verdict with every contrast", bundled="", shape=Verdict
)

FILES = (SAMPLES, SCORES, ARMS, NEUTRAL_TEXT, DISTRIBUTION_SHIFT, VERDICT)
