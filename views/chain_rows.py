"""The tables of a chain of dictionaries, as the page and the terminal show them."""

from __future__ import annotations

from loopscope.views.chain import Chain, Steered
from loopscope.views.chain_levels import fates_row
from loopscope.views.numbers import interval, percent, signed, signed_interval

STEERED_COLUMNS = (
    "dictionary", "along", "strength", "rate", "95 % interval", "less the first row",
    "interval of that",
)  # fmt: skip


def fate_rows(chain: Chain) -> list[list[str]]:
    """Return a row of ``FATE_COLUMNS`` for each graph of the chain that is there."""
    rows = zip(chain.levels, chain.levels[1:], chain.graphs, strict=False)
    return [
        fates_row(before, after, {**graph.told, "by_chance": graph.by_chance})
        for before, after, graph in rows
        if graph.told
    ]


def steered_rows(chain: Chain) -> list[list[str]]:
    """Return a row of ``STEERED_COLUMNS`` for each arm at each level and strength."""
    return [_row(one) for one in chain.steered]


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
