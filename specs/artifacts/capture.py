"""Files of a capture: residual vectors of the prompts and of the calibration text."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table, Tensor, Tensors


class Norms(TypedDict):
    """``norms.json``: the lengths of the residual vectors h of a population of tokens."""

    median_norm: float
    median_centred_norm: float
    mean_norm: float
    n_tokens: int
    population: str


class ShownToken(TypedDict):
    """A token: its text, its part (bos, template, text, assistant), and whether it is kept."""

    text: str
    part: str
    read: bool


class ShownPrompt(TypedDict):
    """A prompt with its tokens, in their order."""

    prompt_id: str
    tokens: list[ShownToken]


class ShownTokens(TypedDict):
    """``tokens.json``: the first prompts of each condition, token by token."""

    prompts: list[ShownPrompt]


RESIDUAL = Tensors(
    name="residual.safetensors",
    about="the residual vectors at the hook, one row a prompt for `positions: last`, one row a "
    "token for `all`",
    bundled="capture",
    tensors=(
        Tensor("residual", "float32", "[rows, d_model]"),
        Tensor("prompt_index", "int32", "[rows]", "the row of `prompts.parquet`"),
        Tensor("position", "int32", "[rows]", "the token's place in the prompt, BOS being 0"),
    ),
)
CAPTURED_PROMPTS = Table(
    name="prompts.parquet",
    about="one row a prompt, as in the bundle without `split` and `group`: a capture does not know "
    "how its prompts are divided",
    columns=(
        Column(
            "prompt_id",
            "text",
            "`target-0000`, `neutral-0000`, `hard-negative-0000`, …, in the order of the prompt "
            "files",
        ),
        Column("text", "text", "the prompt"),
        Column("condition", "text", "`target`, `neutral` or `hard-negative`"),
        Column("n_tokens", "int64", "length without BOS", "tokens"),
        Column(
            "last_token",
            "text",
            "the text of the last token whose vector is kept: by default that of all",
        ),
    ),
)
CALIBRATION = Tensors(
    name="calibration.safetensors",
    about="the residual vectors of every token but BOS of the calibration text, in its order",
    tensors=(Tensor("residual", "float32", "[tokens, d_model]"),),
)
REFERENCE = Tensors(
    name="reference.safetensors",
    about="the rows of the first, last, shortest and longest prompt once more, as plain Hugging "
    "Face has them one prompt at a time",
    tensors=(
        Tensor("residual", "float32", "[rows, d_model]"),
        Tensor("prompt_index", "int32", "[rows]", "the row of `prompts.parquet`"),
    ),
)
WRITTEN = Tensors(
    name="written.safetensors",
    about="the vectors at the write hook, where transcoders write: of the rows of "
    "`residual.safetensors`, and of those of `calibration.safetensors`",
    where="where `writeHook` is given",
    bundled="capture",
    tensors=(
        Tensor("residual", "float32", "[rows, d_write]"),
        Tensor("calibration", "float32", "[tokens, d_write]"),
    ),
)
NORMS = Document(
    name="norms.json",
    about="`median_norm` (median ‖h‖), `mean_norm`, `median_centred_norm` (median ‖h − mean h‖), "
    "`n_tokens`, `population`: all tokens of the target and neutral prompts without BOS, whatever "
    "`positions` says; at the write hook where there is one",
    bundled="capture",
    shape=Norms,
)
MEAN = Tensors(
    name="mean.safetensors",
    about="the mean vector of the same population",
    bundled="capture",
    tensors=(Tensor("mean", "float32", "[d_model]"),),
)
TOKENS = Document(
    name="tokens.json",
    about="the first two prompts of each condition, token by token: `text`, `part` (bos, template, "
    "text, assistant) and whether its vector is kept (`read`)",
    where="with a chat template, or with other `positions` than `last` and `all`",
    bundled="capture",
    shape=ShownTokens,
)

FILES = (RESIDUAL, CAPTURED_PROMPTS, CALIBRATION, REFERENCE, WRITTEN, NORMS, MEAN, TOKENS)
