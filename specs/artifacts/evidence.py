"""Files of an evidence: prompts token by token, and what a latent's decoder row says."""

from __future__ import annotations

from loopscope.specs.artifact_files import Column, Table, alike

_SIDE = Column("side", "text", "`coarse` or `fine`")
_LATENT = Column("latent", "int64", "index in its dictionary")
_PROMPT = Column("prompt_id", "text", "as in `prompts.parquet`")
_PLACE = Column("place", "int32", "of the token in its text; BOS, which is left out, has 0")

SHOWN_LATENTS = Table(
    name="latents.parquet",
    about="the latents that are shown, in their order",
    bundled="evidence",
    columns=(
        _SIDE,
        _LATENT,
        Column(
            "role",
            "text",
            "`anchor`, `child`, `control` (the coarse latent that is nearest to an anchor in rate "
            "over text, norm and crowding, and no anchor) or `candidate` (of the fine dictionary)",
        ),
        Column("anchor", "int64", "a child's or a control's anchor, else -1"),
    ),
)
SHOWN_PROMPTS = Table(
    name="shown_prompts.parquet",
    about="the prompts that are shown of each latent",
    bundled="evidence",
    columns=(
        _SIDE,
        _LATENT,
        _PROMPT,
        Column("chosen", "text", "`top` (largest activations) or `random` (by its hash)"),
        Column("rank", "int32", "from 0, within `chosen`"),
        Column("activation", "float32", "the prompt's, as in `activations.safetensors`"),
    ),
)
TOKENS = Table(
    name="tokens.parquet",
    about="the tokens of these prompts",
    bundled="evidence",
    columns=(
        _PROMPT,
        _PLACE,
        Column(
            "text",
            "text",
            "what the token adds to the text; empty for one that ends within a character. All of "
            "a prompt's put together are the text that the model read, without BOS",
        ),
        Column("read", "bool", "one of the spec's `positions`: the prompt's activation is theirs"),
    ),
)
FIRINGS = Table(
    name="token_activations.parquet",
    about="activations above 0 of each latent on the tokens of its prompts",
    bundled="evidence",
    columns=(_SIDE, _LATENT, _PROMPT, _PLACE, Column("activation", "float32", "above 0")),
)
NEAREST = Table(
    name="nearest.parquet",
    about="the latents of the same dictionary whose decoder rows are nearest to each",
    bundled="evidence",
    columns=(
        _SIDE,
        _LATENT,
        Column("other", "int64", "another latent of the same dictionary"),
        Column("cosine", "float32", "of the two decoder rows, falling", "−1 to 1"),
    ),
)
COSINES = Table(
    name="cosines.parquet",
    about="every coarse latent that is shown beside every fine one that is shown or stands in "
    "`pairs.parquet`",
    bundled="evidence",
    columns=(
        *alike(("coarse", "fine"), Column("", "int64", "latents")),
        Column("cosine", "float32", "of the two decoder rows", "−1 to 1"),
    ),
)
LENS = Table(
    name="logit_lens.parquet",
    about="the tokens that each decoder row pushes up and down most",
    where="where latents are shown and what they write is added to the residual stream",
    bundled="evidence",
    columns=(
        _SIDE,
        _LATENT,
        Column("direction", "text", "`up` or `down`"),
        Column("rank", "int32", "from 0, within `direction`"),
        Column("token", "text", "as it is written out"),
        Column(
            "logit",
            "float32",
            "unit decoder row, times the gain of the final norm (less its mean where that norm "
            "takes it), times the token's row of the unembedding",
        ),
    ),
)

FILES = (SHOWN_LATENTS, SHOWN_PROMPTS, TOKENS, FIRINGS, NEAREST, COSINES, LENS)
