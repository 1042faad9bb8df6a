"""Chains of dictionaries as statuses tell them: which pairs are joined, and what became of latents.

No artifact is read, so a server that holds no tables knows it as well as a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopscope.specs.keys import Key
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import MISSING, decimal, small

FATE_COLUMNS = ("from", "to", "coarse candidates", "fine latents", "edges", "by chance", "p")


@dataclass(frozen=True)
class ChainLevel:
    """A dictionary of a chain, and how many latents it has."""

    identity: str
    latents: int

    @property
    def words(self) -> str:
        """What it is called in tables and pictures."""
        return f"{self.latents:,} latents"


@dataclass(frozen=True)
class Ends:
    """The two dictionaries of a pair, and the content digest of the capture that both read."""

    capture: str
    coarse: ChainLevel
    fine: ChainLevel


@dataclass(frozen=True)
class ToldChain:
    """What the statuses of a chain's splitting graphs say, pair by pair from coarse to fine.

    ``fates`` has a row of ``FATE_COLUMNS`` for each graph that is there, ``missing`` the others
    with the reason.
    """

    levels: tuple[ChainLevel, ...]
    fates: list[list[str]]
    missing: tuple[str, ...]

    @property
    def words(self) -> str:
        """The dictionaries in one line."""
        return in_one_line(self.levels)


def in_one_line(levels: Sequence[ChainLevel]) -> str:
    """Return the dictionaries of a chain in one line."""
    return " → ".join(level.words for level in levels)


def ends_of(splitting: ObjectRecord | None, coarse: ObjectRecord | None) -> Ends | None:
    """Return what a pair begins and ends with; None while that is not known.

    ``coarse`` is the Decomposition by the pair's coarse dictionary.
    """
    used: Mapping[str, Any] = splitting.status.inputs if splitting is not None else {}
    captured = coarse.status.inputs.get("capture", {}) if coarse is not None else {}
    if "dictionary" not in used.get("coarse", {}) or "contentDigest" not in captured:
        return None
    coarse_level, fine_level = (
        ChainLevel(str(one["identity"]), int(one["d_sae"]))
        for one in (used[side]["dictionary"] for side in ("coarse", "fine"))
    )
    return Ends(str(captured["contentDigest"]), coarse_level, fine_level)


def joined(pairs: Mapping[str, Ends]) -> list[list[str]]:
    """Return the chains of at least two pairs, by the names of these, from coarse to fine.

    Pairs of one chain read the same capture. A fork, where two pairs begin with one dictionary, is
    followed along the pair whose name comes first.
    """
    starts: dict[tuple[str, str], list[str]] = {}
    for name, ends in sorted(pairs.items()):
        starts.setdefault((ends.capture, ends.coarse.identity), []).append(name)
    reached = {(ends.capture, ends.fine.identity) for ends in pairs.values()}
    found = []
    for place, several in starts.items():
        if place in reached:
            continue
        way: list[str] = []
        here = several
        while here:
            way.append(here[0])
            following = starts.get((place[0], pairs[here[0]].fine.identity), [])
            here = [one for one in following if one not in way]
        if len(way) > 1:
            found.append(way)
    return found


def fates_row(before: ChainLevel, after: ChainLevel, told: Mapping[str, Any]) -> list[str]:
    """Return a row of ``FATE_COLUMNS``; ``told`` is the summary of a Splitting."""
    return [
        before.words,
        after.words,
        *(_counted(told[side]) for side in ("coarse", "fine")),
        str(told["edges"]),
        decimal(told["by_chance"], 1),
        small(told["p"]),
    ]


def told_chains(records: Sequence[ObjectRecord]) -> list[ToldChain]:
    """Return the chains among what the cells of a sweep own."""
    by_key = {record.key: record for record in records}
    graphs = {one.key.name: one for one in records if one.key.kind == "Splitting"}
    pairs = {name: _ends(graph, by_key) for name, graph in graphs.items()}
    known = {name: ends for name, ends in pairs.items() if ends is not None}
    return [_told([graphs[name] for name in way], [known[name] for name in way])
            for way in joined(known)]  # fmt: skip


def _ends(graph: ObjectRecord, by_key: Mapping[Key, ObjectRecord]) -> Ends | None:
    named = graph.status.inputs.get("coarse", {}).get("object", "")
    return ends_of(graph, by_key.get(Key("Decomposition", graph.key.namespace, str(named))))


def _told(way: Sequence[ObjectRecord], ends: Sequence[Ends]) -> ToldChain:
    fates, missing = [], []
    for graph, one in zip(way, ends, strict=True):
        ready = graph.status.condition("Ready")
        if graph.ready and "edges" in graph.status.summary:
            fates.append(fates_row(one.coarse, one.fine, graph.status.summary))
        else:
            missing.append(f"{graph.key}: {ready.message if ready else 'not looked at yet'}")
    return ToldChain((ends[0].coarse, *(one.fine for one in ends)), fates, tuple(missing))


def _counted(fates: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{number} {fate}" for fate, number in sorted(fates.items()) if number) or MISSING
    )
