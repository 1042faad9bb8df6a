"""Files of a splitting: the edges from coarse to fine latents, and what became of each latent."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.artifact_files import Column, Document, Table, alike

EDGES = Table(
    name="splitting_edges.parquet",
    about="pairs of a coarse and a fine latent of which one carries the other on, around the "
    "candidates of both sides",
    bundled="splitting",
    columns=(
        *alike(("coarse", "fine"), Column("", "int64", "latents")),
        Column("cosine", "float32", "of the two decoder rows", "−1 to 1"),
        Column("correlation", "float64", "Pearson r over all discover prompts", "−1 to 1"),
        Column(
            "direct",
            "bool",
            "no other parent explains the edge: none that is nearer to the fine latent and lies "
            "within the coarse one, or the other way round",
        ),
        Column("twin", "bool", "the fine latent is the coarse one once more"),
        Column(
            "stability", "float64", "share of random halves of the prompts with this edge", "0 to 1"
        ),
    ),
)
LATENTS = Table(
    name="splitting_latents.parquet",
    about="what became of each coarse candidate, and where the fine candidates and the children "
    "come from",
    bundled="splitting",
    columns=(
        Column("side", "text", "`coarse` or `fine`"),
        Column("latent", "int64", "its number in the dictionary"),
        Column("candidate", "bool", "passed the selection of its side"),
        Column(
            "fate",
            "text",
            "of a coarse latent `kept`, `split`, `absorbed`, `merged`, `lost`; of a fine one "
            "`twin`, `part`, `merged`, `born`",
        ),
        Column("relatives", "int64", "its direct children, or parents"),
        Column(
            "hole",
            "float64",
            "largest share of a child's prompts on which the twin is silent; NaN without a twin "
            "and another child, and for fine latents",
            "0 to 1",
        ),
        Column(
            "firing_rate_target", "float64", "share of target prompts on which it fires", "0 to 1"
        ),
    ),
)


class Splitting(TypedDict):
    """The counts, and what chance makes of them.

    ``chance`` is the number of edges in each draw; ``edges`` counts all edges of ``pairs`` near
    pairs, ``direct`` those that no other parent explains.
    """

    coarse: dict[str, int]
    fine: dict[str, int]
    pairs: int
    edges: int
    direct: int
    chance: list[int]
    p: float
    stability: float | None
    unlisted: int


SPLITTING = Document(
    name="splitting.json",
    about="how many latents had each fate, and the edges beside those that chance makes",
    bundled="splitting",
    shape=Splitting,
)

FILES = (EDGES, LATENTS, SPLITTING)
