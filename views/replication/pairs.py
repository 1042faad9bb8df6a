"""Pairs of dictionaries beside one another: which latents and edges of one are found in another.

The cosines come from the geometries that the cells of a sweep of matches made, each of which has
the experiment's dictionary as its coarse one and another pair's as its fine one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from loopscope.numerics.replication.effect import Word
from loopscope.numerics.replication.matching import (
    Matches,
    Share,
    assigned,
    edge_is_there,
    nearest,
)
from loopscope.specs.artifacts.geometry import NEIGHBOURS
from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.keys import Key
from loopscope.specs.replication import sweep_name
from loopscope.specs.sweep import matrix_of
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MISSING, percent
from loopscope.views.replication.effects import equivalences, margin_of, word_of
from loopscope.views.replication.run import StageRun, run_of
from loopscope.views.splitting import splitting
from loopscope.views.tensors import read_tensors

SAME_COSINE = 0.7
"""From this cosine on two decoder rows are the same latent: ``splitting.twinCosine`` by default."""
ALL = "all"
COLUMNS = ("pair", "what", "count", "of", "share", "95 %")
Edge = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """What is counted of one pair, and how many of how many it is true of."""

    pair: str
    what: str
    found: Share

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as texts, one for each of ``COLUMNS``."""
        one = self.found
        if not one.of:
            return (self.pair, self.what, "0", "0", MISSING, MISSING)
        ends = f"{percent(one.low)} to {percent(one.high)}"
        return (self.pair, self.what, f"{one.count:,}", f"{one.of:,}", percent(one.share), ends)


@dataclass(frozen=True)
class Pairs:
    """Lines of all pairs, and why some of them are not there yet."""

    lines: tuple[Line, ...]
    problems: tuple[str, ...]


def load_pairs(state: StateFolder, key: Key) -> Pairs:
    """Return an experiment's pair beside each one that was tried; no line without any.

    Raises KeyError without the experiment, and Corrupt.
    """
    own = ExperimentView.load(state, key)
    lines = [*_absorbed("own", own)]
    problems: list[str] = []
    beside: list[_Beside] = []
    name = sweep_name(key.name, "dictionary")
    with state.database.read() as connection:
        sweep = objects.get(connection, key._replace(name=name))
    for pair in sorted(matrix_of(sweep.spec)["dictionary"]) if sweep is not None else ():
        try:
            other = ExperimentView.load(state, key._replace(name=f"{name}-{pair}"))
            beside.append(_beside(state, key, own, other, pair))
            lines += beside[-1].lines
        except LookupError as error:
            problems.append(f"{pair}: {error.args[0]}")
    lines += over_pairs([one.kept for one in beside], [one.effect for one in beside])
    return Pairs(tuple(lines) if sweep is not None else (), tuple(problems))


@dataclass(frozen=True)
class _Beside:
    """One other pair: its lines, what of the own pair it has, and whether the effect holds in it.

    ``kept`` has for each thing that is counted one truth a latent, or edge, of the own pair;
    ``effect`` is None where nothing was steered.
    """

    lines: list[Line]
    kept: dict[str, list[bool]]
    effect: Word | None


def over_pairs(
    kept: Sequence[Mapping[str, Sequence[bool]]], effects: Sequence[Word | None]
) -> Iterator[Line]:
    """Yield what every other pair has of the own one, and in how many of them the effect is one.

    ``kept`` has a truth for each latent or edge of the own pair, by what is counted, one mapping a
    pair. With fewer than two other pairs nothing is added to the lines of the one.
    """
    if len(kept) < 2:
        return
    for what in kept[0]:
        every = [all(one) for one in zip(*(pair[what] for pair in kept), strict=True)]
        yield Line(ALL, f"{what}, in every pair", Share.over(every))
    steered = [effect for effect in effects if effect is not None]
    if steered:
        for word in ("same effect", "another effect"):
            found = Share.over([one == word for one in steered])
            yield Line(ALL, f"pairs with {word.replace('same', 'the same')}", found)


def _effect(own: ExperimentView, other: ExperimentView) -> Word | None:
    """Return whether both primary contrasts are the same in two pairs, None without steering."""
    first, second = run_of(own), run_of(other)
    margin = margin_of(first)
    found = equivalences(first, second, margin) if margin is not None else ()
    return word_of(found) if found else None


def _beside(
    state: StateFolder, key: Key, own: ExperimentView, other: ExperimentView, pair: str
) -> _Beside:
    """Return what is counted of a pair. Raises LookupError with what is missing."""
    lines: list[Line] = []
    kept: dict[str, list[bool]] = {}
    edges = [_edges(view) for view in (own, other)]
    found: dict[str, Matches] = {}
    for side in ("coarse", "fine"):
        view = ExperimentView.load(state, key._replace(name=f"{key.name}-matches-{pair}-{side}"))
        cosines = _cosines(state, view)
        found[side] = assigned(cosines, SAME_COSINE)
        near, partner = nearest(cosines) >= SAME_COSINE, found[side].partner
        alike = f"at cosine {SAME_COSINE:g}"
        lines.append(Line(pair, f"{side} latents, nearest {alike}", Share.over(near.tolist())))
        one_for_one = f"{side} latents, one for one {alike}"
        kept[one_for_one] = [latent in partner for latent in range(cosines.shape[0])]
        lines.append(Line(pair, one_for_one, Share.over(kept[one_for_one])))
        mine, theirs = (set(v.candidates("coarse" if side == "coarse" else "fine"))
                        for v in (own, other))  # fmt: skip
        again = [partner.get(latent, -1) in theirs for latent in sorted(mine)]
        kept[f"{side} candidates that are candidates again"] = again
        lines.append(Line(pair, f"{side} candidates that are candidates again", Share.over(again)))
    there = edge_is_there(edges[0], found["coarse"].partner, found["fine"].partner, edges[1])
    kept["edges from candidates to children"] = there
    lines.append(Line(pair, "edges from candidates to children", Share.over(there)))
    return _Beside([*lines, *_absorbed(pair, other)], kept, _effect(own, other))


def _edges(view: ExperimentView) -> list[Edge]:
    gate = _stage(view, "mapping").document(GATE)
    if gate is None:
        raise LookupError(f"{view.name} has no gate")
    return [(int(one["coarse"]), int(c)) for one in gate["anchors"] for c in one["children"]]


def _absorbed(pair: str, view: ExperimentView) -> Iterator[Line]:
    """Yield how many coarse candidates were absorbed, where a splitting graph was asked for."""
    graph = splitting(view)
    if not graph.problem:
        fates = [one.fate == "absorbed" for one in graph.latents if one.side == "coarse"]
        yield Line(pair, "coarse candidates that are absorbed", Share.over(fates))


def _stage(view: ExperimentView, name: str) -> StageRun:
    found = {str(node): stage for node, stage in run_of(view).stages.items()}.get(name)
    if found is None:
        raise LookupError(f"{view.name} is not finished")
    return found


def _cosines(state: StateFolder, view: ExperimentView) -> scipy.sparse.csr_array:
    """Return the cosines of decoder rows (coarse, fine) that a mapping's geometry lists."""
    digest = _stage(view, "mapping").inputs.get("geometry", {}).get("digest")
    with state.database.read() as connection:
        artifact = artifact_index.get(connection, str(digest))
    if artifact is None:
        raise LookupError(f"the geometry of {view.name} was collected")
    tensors = read_tensors(state.artifacts.fetch(artifact) / NEIGHBOURS.name)
    shape = len(tensors["indptr"]) - 1, int(str(artifact.metrics["fine"]))
    parts = tensors["cosine"].astype(np.float64), tensors["fine"], tensors["indptr"]
    return scipy.sparse.csr_array(parts, shape=shape)


def pair_lines(found: Pairs) -> Iterator[tuple[str, ...]]:
    """Yield the table's head and rows as texts."""
    yield COLUMNS
    for line in found.lines:
        yield line.cells
