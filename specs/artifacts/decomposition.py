"""Files of a decomposition: prompt activations, and the statistics of each latent."""

from __future__ import annotations

from typing import Literal

from loopscope.specs.artifact_files import Column, Table, Tensor, Tensors, alike
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS

_HARD_NEGATIVES = "where the spec names some"

ACTIVATIONS = Tensors(
    name="activations.safetensors",
    about="prompt activations as a sparse matrix [prompts, latents] in CSR; row *i* is row *i* of "
    "`prompts.parquet`",
    tensors=(
        Tensor("indptr", "int64", "[prompts + 1]"),
        Tensor("indices", "int32", "[entries]"),
        Tensor("values", "float32", "[entries]"),
        Tensor("shape", "int64", "[2]"),
    ),
)
FEATURES = Table(
    name="features.parquet",
    about="one row a latent, as `features_coarse.parquet` of the bundle without `candidate`",
    columns=(
        Column("latent", "int64", "index in the dictionary"),
        Column(
            "aggregation",
            "text",
            "how a prompt's tokens became one activation: `last`, `max` or `mean`; the same in "
            "every row",
        ),
        *alike(
            ("mean_activation_target", "mean_activation_neutral"),
            Column(
                "",
                "float64",
                "mean prompt activation in the condition, silent prompts counted as 0",
                "activation",
            ),
        ),
        *alike(
            ("max_activation_target", "max_activation_neutral"),
            Column("", "float64", "largest prompt activation in the condition", "activation"),
        ),
        *alike(
            ("firing_rate_target", "firing_rate_neutral"),
            Column(
                "",
                "float64",
                "share of the condition's prompts on which the latent fires",
                "0 to 1",
            ),
        ),
        Column(
            "selectivity",
            "float64",
            "(μ⁺ − μ⁻) / (μ⁺ + μ⁻ + ε) of the means; about 0 for a silent latent",
            "−1 to 1",
        ),
        Column(
            "cohens_d",
            "float64",
            "(μ⁺ − μ⁻) / pooled standard deviation; NaN where neither condition varies",
        ),
        Column("auroc", "float64", "P(target > neutral) + ½ P(tie)", "0 to 1"),
        Column(
            "p_value",
            "float64",
            "two-sided Mann–Whitney U; NaN when the latent fires on fewer than 5 prompts",
        ),
        Column(
            "q_value",
            "float64",
            "Benjamini–Hochberg over the tested latents; NaN where not tested",
        ),
        Column(
            "n_firing",
            "int64",
            "how many prompts the latent fires on, both conditions",
            "prompts",
        ),
        Column(
            "mean_activation_hard_negative",
            "float64",
            "mean prompt activation over the hard negatives",
            "activation",
            _HARD_NEGATIVES,
        ),
        Column(
            "firing_rate_hard_negative",
            "float64",
            "share of the hard negatives on which the latent fires",
            "0 to 1",
            _HARD_NEGATIVES,
        ),
        Column(
            "selectivity_hard_negative",
            "float64",
            "(μ⁺ − μʰ) / (μ⁺ + μʰ + ε): target against the hard negatives",
            "−1 to 1",
            _HARD_NEGATIVES,
        ),
        Column(
            "text_rate",
            "float64",
            "share of the calibration text's tokens, BOS excluded, on which the latent fires",
            "0 to 1",
        ),
    ),
)
PROMPTS = Table(
    name="prompts.parquet",
    bundled="capture",
    about="the capture's prompts with their `split` and, where some belong together, `group`",
    columns=(
        *CAPTURED_PROMPTS.columns,
        Column("split", "text", "`discover` or `test`"),
        Column(
            "group",
            "int64",
            "the same number for prompts that belong together",
            where="where some do",
        ),
    ),
)
CANDIDATE = Column("candidate", "bool", "passed the declared selection and is among its `top`")
"""What an export adds to ``FEATURES``: it follows from the object's status, not from the file."""


def bundled_features(side: Literal["coarse", "fine"]) -> str:
    """Return the name that the evidence bundle gives a side's ``FEATURES``."""
    return f"features_{side}.parquet"


FILES = (ACTIVATIONS, FEATURES, PROMPTS)
