"""Files of an answer: a text token by token, what fires on it, and how it goes on."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Table

_PLACE = Column("place", "int32", "of the token in the text; BOS, which is left out, has 0")

ASKED_TOKENS = Table(
    name="question_tokens.parquet",
    about="the tokens of the text that was asked about",
    columns=(
        _PLACE,
        Column("text", "text", "what the token adds to the text, as in an evidence"),
        Column("steered", "bool", "the arm acts there; false where latents were asked for"),
    ),
)
ASKED_ACTIVATIONS = Table(
    name="question_activations.parquet",
    about="activations above 0 of the latents that were asked for; no row where an arm was",
    columns=(
        Column("side", "text", "`coarse` or `fine`"),
        Column("latent", "int64", "index in its dictionary"),
        _PLACE,
        Column("activation", "float32", "above 0"),
    ),
)
ANSWERS = Table(
    name="answers.parquet",
    about="how the text goes on, unsteered and under the arm; no row where latents were asked for",
    columns=(
        Column("arm", "text", "`none`, then the arm that was asked for"),
        Column("strength", "float64", "as it was asked for; 0 for `none`", "`strengthUnit`"),
        Column("norm", "float64", "length of the vector that is added", "residual stream"),
        Column("text", "text", "the generated text, without the opening"),
        Column("tokens", "list of int32", "its token ids"),
        Column(
            "after_steered",
            "int32",
            "how many of its tokens were drawn after a steered one, as the hook counted",
            "tokens",
        ),
    ),
)

FILES = (ASKED_TOKENS, ASKED_ACTIVATIONS, ANSWERS)
