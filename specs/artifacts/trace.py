"""Files of a trace: the texts of a steering cut into tokens, and the stream along some of them."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Table, Tensor, Tensors
from loopscope.specs.artifacts.steering import SAMPLES

_TEXT = tuple(SAMPLES.columns[:4])
"""What names a text: opening, arm, strength, sample."""

SAMPLE_TOKENS = Table(
    name="sample_tokens.parquet",
    about="the texts of `steering_samples.parquet` cut into their tokens, in the same order",
    bundled="trace",
    columns=(
        *_TEXT,
        Column(
            "ends",
            "list of int32",
            "where each token ends in `text`; one that ends within a character has the end of the "
            "one before",
            "characters",
        ),
        Column(
            "steered",
            "int32",
            "how many of its tokens, from the first, were steered when the next one was drawn: "
            "none, or all but the last where `maxNewTokens` ended the text",
            "tokens",
        ),
    ),
)
OPENING_TOKENS = Table(
    name="opening_tokens.parquet",
    about="the openings token by token, with the chat template where there is one and without the "
    "words of a system prompt",
    bundled="trace",
    columns=(
        _TEXT[0],
        Column("place", "int32", "of the token in the text; BOS, which is left out, has 0"),
        Column("text", "text", "what the token adds to the text, as in an evidence"),
        Column("steered", "bool", "steered under the arms that steer (the prompts do not)"),
    ),
)
STEPS = Table(
    name="trace_steps.parquet",
    about="the steps of the texts that are followed: from each the next token was drawn",
    bundled="trace",
    columns=(
        *_TEXT,
        Column(
            "step", "int32", "0 for the last token of the opening, then the generated ones from 1"
        ),
        Column("token", "text", "what the token of this step adds to the text"),
        Column("steered", "bool", "the arm acts on it"),
    ),
)
STREAM = Tensors(
    name="trace.safetensors",
    about="the residual stream at the hook on these steps, a row a step",
    bundled="trace",
    tensors=(
        Tensor("residual", "float32", "[steps, d_model]", "as the blocks below bring it"),
        Tensor(
            "steered",
            "float32",
            "[steps, d_model]",
            "as the arm leaves it. Where `writeHook` is given the arm acts later, and this is "
            "`residual`",
        ),
        Tensor(
            "children",
            "float32",
            "[children, d_write]",
            "unit decoder rows of the children in `directions.json`, in their order",
        ),
    ),
)

FILES = (SAMPLE_TOKENS, OPENING_TOKENS, STEPS, STREAM)
