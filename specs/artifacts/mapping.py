"""Files of a mapping: pairs of latents, what the counts are compared with, directions."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Document, Table, Tensor, Tensors, alike
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.artifacts.gate import Directions, Gate

_AGGREGATION = Column("aggregation", "text", "as in the feature tables")
_TEST_SPLIT = "when prompts are held out"
_ANCHORS = "when there is an anchor"

PAIRS = Table(
    name="pairs.parquet",
    about="each anchor with the fine latents that are near it, fire with it or are its children",
    bundled="",
    columns=(
        *alike(("coarse", "fine"), Column("", "int64", "latents")),
        Column("cosine", "float32", "of the two decoder rows", "−1 to 1"),
        Column(
            "correlation",
            "float64",
            "Pearson r of the prompt activations over all discover prompts; NaN when one of the "
            "latents does not vary",
            "−1 to 1",
        ),
        Column(
            "correlation_within_target", "float64", "the same over target prompts only", "−1 to 1"
        ),
        Column(
            "correlation_within_condition",
            "float64",
            "the same after each condition's mean is taken away",
            "−1 to 1",
        ),
        Column(
            "p_permutation",
            "float64",
            "one-sided p of the pair, prompts permuted within condition and, with "
            "`aggregation: last`, the class of `last_token`; NaN when a latent fires on fewer "
            "than 5 discover prompts or is constant within conditions, or without permutations",
        ),
        Column(
            "p_search",
            "float64",
            "the same against the largest correlation of each permutation over all tested fine "
            "latents",
        ),
        Column(
            "p_smallest",
            "float64",
            "what `p_permutation` would be on average if both latents were sorted alike: it can "
            "hardly fall below, and `p_search` neither; NaN where there is no `p_permutation`",
        ),
        Column(
            "p_same_cosine",
            "float64",
            "(1 + pairs with as high a correlation within condition) / (1 + pairs), over the pairs "
            "of other coarse latents within 0.05 of this cosine (at most 500); NaN without any",
        ),
        Column("same_cosine_pairs", "int64", "how many pairs these are", "pairs"),
        Column(
            "proposed_by",
            "text",
            "`cosine` (among the best by cosine, or at minCosine) or `correlation` (found by "
            "searching for it)",
        ),
        Column(
            "reading",
            "text",
            "`match`, `partial`, `co-occurring`, `geometric-only`, `unrelated`, `unobserved`",
        ),
        Column(
            "coverage_coarse_given_fine",
            "float64",
            "P(coarse fires given fine fires); NaN when fine never fires",
            "0 to 1",
        ),
        Column(
            "coverage_fine_given_coarse",
            "float64",
            "P(fine fires given coarse fires); NaN when coarse never fires",
            "0 to 1",
        ),
        Column("child", "bool", "a child by the gate's rule"),
        Column(
            "q_permutation",
            "float64",
            "Benjamini–Hochberg over the tested pairs of this table, `p_permutation` where "
            "geometry proposed the pair, else `p_search`",
        ),
        Column(
            "edge",
            "text",
            "`not independent` (q ≤ maxQ), `not shown` or `not tested`. Not independent is not "
            "parent and child",
        ),
        _AGGREGATION,
    ),
)
FEATURES_TEST = Table(
    name="features_test.parquet",
    about="the candidates once more, and their children, on prompts that chose nothing",
    where=_TEST_SPLIT,
    bundled="",
    columns=(
        Column("side", "text", "`coarse` or `fine`"),
        *(
            Column(
                "p_value",
                "float64",
                "*one-sided* Mann–Whitney (target larger); NaN when the latent fires on fewer than "
                "5 test prompts",
            )
            if column.name == "p_value"
            else column
            for column in FEATURES.without("q_value", "text_rate")
        ),
        Column(
            "p_holm",
            "float64",
            "Holm's adjusted p over the candidates (over the children for `fine`); a latent that "
            "was not tested counts as a test",
        ),
        Column(
            "confirmed",
            "bool",
            "candidates: passes the declared selection again, with `p_holm` ≤ maxQ in the place of "
            "q; null for children, which geometry chose",
        ),
    ),
)
COSINE_HISTOGRAM = Table(
    name="cosine_histogram.parquet",
    about="how the cosines of each anchor to all fine latents are spread",
    bundled="",
    columns=(
        Column("coarse", "int64", "anchor"),
        *alike(
            ("bin_low", "bin_high"),
            Column("", "float64", "100 bins of width 0.02 over [−1, 1]", "cosine"),
        ),
        Column(
            "count",
            "int64",
            "fine latents, of all, whose decoder cosine lies in the bin",
            "latents",
        ),
    ),
)
COARSE_SUMMARY = Table(
    name="coarse_summary.parquet",
    about="for every coarse latent, how many children it has",
    bundled="",
    columns=(
        Column("coarse", "int64", "latent"),
        _AGGREGATION,
        Column("fires", "bool", "fires on some discover prompt"),
        *alike(
            ("children_cosine_rule", "children_strict_rule"),
            Column("", "int64", "children by each rule", "latents"),
        ),
        *alike(
            ("passes_cosine_rule", "passes_strict_rule"),
            Column(
                "",
                "bool",
                "at least minSubfeatures children; the strict rule also asks for a latent that "
                "passes the selection thresholds",
            ),
        ),
    ),
)
GATE = Document(
    name="gate.json", about="the gate's verdict with its numbers", bundled="", shape=Gate
)
GATE_DRAWS = Table(
    name="gate_draws.parquet",
    about="every draw behind the percentile, the controls and the stability",
    bundled="",
    columns=(
        Column(
            "source",
            "text",
            "`matched anchors`, a control (`decoder rows`, `stream rows`, `permuted pairs`) or "
            "`resample` (a half of the prompts)",
        ),
        Column("draw", "int64", "the draw's number within its source"),
        Column("best_count", "int64", "the largest number of children in the draw", "latents"),
        Column(
            "mean_rank",
            "float64",
            "matched anchors: that of the set in the candidates' places; resamples: that of its "
            "candidates; else NaN",
            "0 to 100",
        ),
        Column(
            "percentile",
            "float64",
            "resamples: of that mean rank among the anchors matched in it; else NaN",
            "0 to 100",
        ),
    ),
)
GATE_SETTINGS = Table(
    name="gate_settings.parquet",
    about="what the gate rests on at other settings, each combination of a few cosines, "
    "correlations and q's a row; how many children it asks for is left open",
    where="with `gate.sensitivity`, unless the geometry lists too few pairs at `minCosine`",
    bundled="",
    columns=(
        *alike(
            ("min_cosine", "min_correlation", "max_q"),
            Column("", "float64", "the setting; one row has the declared ones"),
        ),
        Column("candidates", "list of int32", "coarse latents that the selection takes, in order"),
        Column("children_of", "list of int32", "how many children each candidate has", "latents"),
        Column("children", "list of int32", "these children, candidate after candidate"),
        Column("best_count", "int64", "the largest number of children of a candidate", "latents"),
        Column("mean_rank", "float64", "as in `gate.json`; NaN without anchors", "0 to 100"),
        Column("percentile", "float64", "of that mean rank; NaN without anchors", "0 to 100"),
        Column("null_anchors", "int64", "how many matched anchors each candidate has", "latents"),
        Column("control_p", "float64", "the largest p of the controls that decide"),
        Column("needed", "int64", "perfect latents that would have to pass together", "latents"),
        Column("half_counts", "list of int32", "`best_count` in each half of the prompts"),
        Column("half_passes", "list of int32", "1 where a half's percentile reaches minPercentile"),
        Column(
            "half_powerless",
            "list of int32",
            "1 where nothing was selected in a half and nothing could have been",
        ),
    ),
)
DIRECTIONS_VECTORS = Tensors(
    name="directions.safetensors",
    about="unit vectors of the arms, those that exist",
    where=_ANCHORS,
    bundled="",
    tensors=(
        Tensor(
            "coarse",
            "float32",
            "[d_model]",
            "decoder row of the steered anchor",
            "where it is not zero",
        ),
        Tensor(
            "fine",
            "float32",
            "[d_model]",
            "normalised sum of the unit rows of its children",
            "where it has some",
        ),
        Tensor(
            "multi", "float32", "[d_model]", "normalised sum of the two", "where both are there"
        ),
    ),
)
DIRECTIONS = Document(
    name="directions.json",
    about="what the arms' vectors are, and why one is missing",
    bundled="",
    shape=Directions,
)

FILES = (
    PAIRS,
    FEATURES_TEST,
    COSINE_HISTOGRAM,
    COARSE_SUMMARY,
    GATE,
    GATE_DRAWS,
    GATE_SETTINGS,
    DIRECTIONS_VECTORS,
    DIRECTIONS,
)
