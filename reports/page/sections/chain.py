"""The section on a chain of dictionaries: one graph over all levels, and steering at each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from markupsafe import Markup

from loopscope.reports.page.figures.splitting import Level, splitting_picture
from loopscope.views.chain import Chain, Steered
from loopscope.views.numbers import (
    MISSING,
    decimal,
    interval,
    percent,
    signed,
    signed_interval,
    small,
)
from loopscope.views.splitting import GraphLatent, SplittingView

FATE_COLUMNS = ("from", "to", "coarse candidates", "fine latents", "edges", "by chance", "p")
STEERED_COLUMNS = (
    "dictionary", "along", "strength", "rate", "95 % interval", "less the first row",
    "interval of that",
)  # fmt: skip


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
        return " → ".join(level.words for level in self.seen.levels)


def chain_section(chain: Chain) -> ChainSection:
    """Return a chain as the page shows it."""
    steps = [[edge for edge in graph.edges if edge.direct] for graph in chain.graphs]
    figure = splitting_picture(_levels(chain), steps)
    rows = zip(chain.levels, chain.levels[1:], chain.graphs, strict=False)
    fates = [
        [before.words, after.words, *_fates(graph)] for before, after, graph in rows if graph.told
    ]
    return ChainSection(chain, figure, fates, [_row(one) for one in chain.steered])


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


def _fates(graph: SplittingView) -> list[str]:
    told = graph.told
    assert told is not None  # asked only where there is a graph
    return [
        *(_counted(told[side]) for side in ("coarse", "fine")),
        str(told["edges"]),
        decimal(graph.by_chance, 1),
        small(told["p"]),
    ]


def _counted(fates: dict[str, int]) -> str:
    return ", ".join(f"{number} {fate}" for fate, number in fates.items() if number) or MISSING


def _row(one: Steered) -> list[str]:
    return [
        one.level.words,
        one.what,
        f"{one.strength:g}",
        percent(one.rate, 0),
        interval(one.rate_low, one.rate_high),
        signed(one.against),
        signed_interval(one.low, one.high),
    ]
