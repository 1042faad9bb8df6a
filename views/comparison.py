"""Two experiments side by side: what differs in spec, latents, mapping and verdict.

Latents are matched by what artifacts hold: by their number where both experiments read the same
dictionary, by decoder cosine where a geometry of the two dictionaries was made for some experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from loopscope.specs.artifacts.geometry import NEIGHBOURS
from loopscope.specs.artifacts.mapping import DIRECTIONS_VECTORS, GATE
from loopscope.specs.artifacts.steering import ARMS, VERDICT
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.folder import StateFolder
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.history import Change, changes_of
from loopscope.views.tensors import read_tensors

Side = Literal["coarse", "fine"]
How = Literal["number", "cosine", "not matched"]
MIN_COSINE = 0.3
"""Below this two decoder rows do not count as the same latent; ``mapping.minCosine`` by default."""
_MAPPING = ("verdict", "percentile", "best_count", "n_all", "share_of_all", "share_of_firing")
_VERDICT = ("verdict", "contrast", "estimate", "low", "high", "n")


@dataclass(frozen=True)
class Match:
    """A latent of the first experiment and the one of the second that is most like it."""

    first: int
    second: int | None
    cosine: float | None


@dataclass(frozen=True)
class Latents:
    """The latents of one side: anchors for ``coarse``, all children for ``fine``.

    ``only_second`` are those of the second experiment that none of the first was matched with.
    ``note`` says why nothing could be matched; then a latent without a match may have one.
    ``direction_cosine`` is that of the steered directions, None where one is missing or they have
    other widths.
    """

    side: Side
    how: How
    matches: tuple[Match, ...]
    only_second: tuple[int, ...]
    note: str
    direction_cosine: float | None


@dataclass(frozen=True)
class Number:
    """A headline of a stage in both experiments; None where it is not there."""

    name: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        """Whether the two have other values."""
        return bool(self.first != self.second)


@dataclass(frozen=True)
class ComparisonView:
    """Two experiments; ``problems`` are stages without an artifact to look at, by experiment."""

    first: str
    second: str
    spec: tuple[Change, ...]
    latents: tuple[Latents, ...]
    mapping: tuple[Number, ...]
    verdict: tuple[Number, ...]
    arms: tuple[Number, ...]
    """The share of texts with a word of the lexicon, by arm and strength."""
    problems: tuple[tuple[str, str], ...]


def compare(state: StateFolder, first: Key, second: Key) -> ComparisonView:
    """Compare two experiments. Raises KeyError if one does not exist, and Corrupt."""
    one, two = ExperimentView.load(state, first), ExperimentView.load(state, second)
    return ComparisonView(
        str(first),
        str(second),
        changes_of(one.experiment.spec, two.experiment.spec),
        tuple(_latents(state, one, two, side) for side in ("coarse", "fine")),
        _numbers(_MAPPING, _document(one, "mapping"), _document(two, "mapping")),
        (
            *_numbers(_VERDICT, _document(one, "steering"), _document(two, "steering")),
            *_numbers_of_all(_p(one), _p(two)),
        ),
        _numbers_of_all(_rates(one), _rates(two)),
        tuple(
            (view.name, f"{stage.name}: {stage.problem}")
            for view in (one, two)
            for stage in view.stages.values()
            if stage.problem
        ),
    )


def _document(view: ExperimentView, name: Literal["mapping", "steering"]) -> Mapping[str, Any]:
    """Return gate or verdict; empty where there is none."""
    stage = view.stage(name)
    wanted = GATE if name == "mapping" else VERDICT
    if stage.artifact is None or wanted.name not in stage.artifact.files:
        return {}
    return cast(Mapping[str, Any], stage.document_named(wanted.name))


def _numbers(
    names: Sequence[str], one: Mapping[str, Any], two: Mapping[str, Any]
) -> tuple[Number, ...]:
    return tuple(Number(name, one.get(name), two.get(name)) for name in names)


def _numbers_of_all(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[Number, ...]:
    return _numbers([*one, *(name for name in two if name not in one)], one, two)


def _p(view: ExperimentView) -> dict[str, float]:
    """Return the p of each word that a verdict may have."""
    found = _document(view, "steering").get("p") or {}
    return {f"p.{word}": value for word, value in sorted(found.items())}


def _rates(view: ExperimentView) -> dict[str, float]:
    """Return the concept rate of each arm at each strength; none where nothing was steered."""
    stage = view.stage("steering")
    if stage.artifact is None or ARMS.name not in stage.artifact.files:
        return {}
    rows = stage.table(ARMS).itertuples()
    return {
        f"{row.arm} at {row.strength:g}" if row.strength else str(row.arm): float(row.concept_rate)
        for row in rows
    }


def _latents(state: StateFolder, one: ExperimentView, two: ExperimentView, side: Side) -> Latents:
    mine, theirs = _latents_of(one, side), _latents_of(two, side)
    cosine = _direction_cosine(one.stage("mapping"), two.stage("mapping"), side)
    dictionaries = [_dictionary(view.stage(side)) for view in (one, two)]
    alone = tuple(Match(latent, None, None) for latent in mine)
    if None in dictionaries or not (mine and theirs):
        note = "one of them has no such latents"
        return Latents(side, "not matched", alone, tuple(theirs), note, cosine)
    if dictionaries[0] == dictionaries[1]:
        known = set(theirs)
        same = (Match(n, n, 1.0) if n in known else Match(n, None, None) for n in mine)
        return _matched(side, "number", tuple(same), theirs, cosine)
    cosines = _cosines(state, str(dictionaries[0]), str(dictionaries[1]))
    if cosines is None:
        note = "other dictionaries, and no artifact holds the cosines of their rows"
        return Latents(side, "not matched", alone, tuple(theirs), note, cosine)
    best = tuple(_best(latent, theirs, cosines) for latent in mine)
    return _matched(side, "cosine", best, theirs, cosine)


def _matched(
    side: Side, how: How, matches: tuple[Match, ...], theirs: Sequence[int], cosine: float | None
) -> Latents:
    taken = {match.second for match in matches}
    rest = tuple(latent for latent in theirs if latent not in taken)
    return Latents(side, how, matches, rest, "", cosine)


def _best(latent: int, theirs: Sequence[int], cosines: Mapping[tuple[int, int], float]) -> Match:
    near = [(cosines.get((latent, other), -1.0), other) for other in theirs]
    cosine, other = max(near)
    return Match(latent, other, cosine) if cosine >= MIN_COSINE else Match(latent, None, None)


def _latents_of(view: ExperimentView, side: Side) -> list[int]:
    """Return anchors or children, in the order of the gate; none where there is no mapping."""
    anchors = _document(view, "mapping").get("anchors", ())
    if side == "coarse":
        return [int(anchor["coarse"]) for anchor in anchors]
    children = (int(child) for anchor in anchors for child in anchor["children"])
    return list(dict.fromkeys(children))


def _dictionary(stage: StageView) -> str | None:
    """Return the identity of the dictionary that a decomposition read."""
    given = stage.record.status.inputs.get("dictionary", {}) if stage.record is not None else {}
    identity = given.get("ref", {}).get("identity")
    return str(identity) if identity is not None else None


def _direction_cosine(one: StageView, two: StageView, side: Side) -> float | None:
    vectors = [_direction(stage, side) for stage in (one, two)]
    if vectors[0] is None or vectors[1] is None or vectors[0].shape != vectors[1].shape:
        return None
    return float(vectors[0] @ vectors[1])  # both have length 1


def _direction(stage: StageView, side: Side) -> Any:
    if stage.artifact is None or DIRECTIONS_VECTORS.name not in stage.artifact.files:
        return None
    found = read_tensors(stage.path(DIRECTIONS_VECTORS.name)).get(side)
    return None if found is None else np.asarray(found, dtype=np.float64)


def _cosines(state: StateFolder, one: str, two: str) -> dict[tuple[int, int], float] | None:
    """Return the cosines of decoder rows (of ``one``, of ``two``) that a geometry lists."""
    with state.database.read() as connection:
        geometries = [a for a in artifact_index.listed(connection) if a.stage == "geometry"]
    for artifact in geometries:
        manifest = state.artifacts.manifest(artifact.stage, artifact.digest)
        inputs = cast(Mapping[str, Mapping[str, object]], manifest["inputs"])
        pair = tuple(str(inputs[name]["identity"]) for name in ("coarse", "fine"))
        if pair not in ((one, two), (two, one)):
            continue
        tensors = read_tensors(state.artifacts.fetch(artifact) / NEIGHBOURS.name)
        rows = np.repeat(np.arange(len(tensors["indptr"]) - 1), np.diff(tensors["indptr"]))
        turned = pair != (one, two)
        places = zip(rows.tolist(), tensors["fine"].tolist(), strict=True)
        ordered = ((b, a) if turned else (a, b) for a, b in places)
        return dict(zip(ordered, tensors["cosine"].tolist(), strict=True))
    return None
