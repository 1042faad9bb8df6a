"""The section on a chain of dictionaries: one graph over all levels, and steering at each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from loopscope.reports.page.figures.splitting import Level, splitting_picture
from loopscope.views.chain import Chain
from loopscope.views.chain_rows import fate_rows, steered_rows
from loopscope.views.splitting import GraphLatent


@dataclass(frozen=True)
class ChainSection:
    """What is shown of a chain."""

    seen: Chain
    figure: Markup
    fates: list[list[str]]
    steered: list[list[str]]

    @property
    def words(self) -> str:
        """The dictionaries in one line."""
        return self.seen.words


def chain_section(chain: Chain) -> ChainSection:
    """Return a chain as the page shows it."""
    steps = [[edge for edge in graph.edges if edge.direct] for graph in chain.graphs]
    figure = splitting_picture(_levels(chain), steps)
    return ChainSection(chain, figure, fate_rows(chain), steered_rows(chain))


def _levels(chain: Chain) -> list[Level]:
    """Return the latents of each level: where they come from, and what becomes of them."""
    found: list[dict[int, GraphLatent]] = [{} for _ in chain.levels]
    for number, graph in enumerate(chain.graphs):
        for edge in graph.edges:  # a parent may be no candidate, and have no word
            nothing = float("nan")
            unknown = GraphLatent("coarse", edge.coarse, False, "", 0, nothing, nothing)
            if edge.direct:
                found[number].setdefault(edge.coarse, unknown)
        for one in graph.latents:
            level = found[number + (one.side == "fine")]
            known = level.get(one.latent)
            words = f"{known.fate}, {one.fate}" if known is not None and known.fate else one.fate
            level[one.latent] = replace(one, fate=words)
    names = [level.words for level in chain.levels]
    return [Level(name, latents) for name, latents in zip(names, found, strict=True)]
