"""Axes along which a result is tried again: one sweep an axis, of which each cell differs in one.

Plain JSON in, plain JSON out: from an experiment's spec to the spec of a sweep over one axis. What
no verdict rests on is left out of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Literal, cast, get_args

from loopscope.specs.hooks import Hook
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION, MATCHES_LABEL, REPLICATES_LABEL
from loopscope.specs.pipeline import PIPELINE
from loopscope.specs.sweep import HOLD_OVER, value_at

AxisKind = Literal["seed", "dtype", "layer", "prompts", "dictionary", "model"]
AXES: tuple[AxisKind, ...] = get_args(AxisKind)
SEEDS_TRIED = 3
DTYPES = ("float32", "float16", "bfloat16")
"""By how many bits of a number they keep, falling."""
LEFT_OUT = tuple(node.name for node in PIPELINE if node.optional and node.name != "steering")
HALVES = ("odd", "even")
SIDES = ("coarse", "fine")
_SEED_FIELDS = ("splits.seed", "mapping.seed", "gate.seed", "steering.sampling.seed")
_Values = dict[str, JsonObject]


def sweep_name(experiment: str, axis: str) -> str:
    """Return the name of the sweep over an axis."""
    return f"{experiment}-by-{axis}"


def replicating_sweep(
    experiment: str,
    namespace: str,
    spec: JsonObject,
    axis: AxisKind,
    given: Sequence[str],
    known: Mapping[str, Mapping[str, Json]],
) -> JsonObject:
    """Return the document of the sweep that tries an experiment again along an axis.

    ``given`` are the axis' values as they are typed, empty for those that the axis has by itself;
    ``known`` those that were tried before, which stay.
    Raises ValueError where there is none, or where one is wrong.
    """
    if "matrix" in spec:
        raise ValueError(f"{experiment} is a sweep; replicate one of its cells")
    values = {**{name: dict(sets) for name, sets in known.items()}, **_VALUES[axis](spec, given)}
    if not values:
        raise ValueError(f"{axis}: the experiment's own value is the only one that was named")
    kept = {name: one for name, one in spec.items() if name not in (*LEFT_OUT, HOLD_OVER)}
    if axis == "dictionary":  # absorption is counted pair by pair
        kept["splitting"] = spec.get("splitting", {})
    matrix: JsonObject = {axis: cast("Json", values)}
    metadata: JsonObject = {
        "name": sweep_name(experiment, axis),
        "namespace": namespace,
        "labels": {REPLICATES_LABEL: experiment},
        "generation": 1,  # as the store has it: the texts stand in the spec, whatever its files say
    }
    return {
        "apiVersion": API_VERSION, "kind": "Experiment", "metadata": metadata,
        "spec": {**kept, "matrix": matrix},
    }  # fmt: skip


def matching_sweep(
    experiment: str, namespace: str, spec: JsonObject, known: Mapping[str, Mapping[str, Json]]
) -> JsonObject:
    """Return the sweep that holds the dictionaries of an experiment beside those of other pairs.

    ``known`` are the pairs that were tried, as in the matrix of ``replicating_sweep``. Of each side
    one cell has the experiment's dictionary as the coarse one and the other pair's as the fine one,
    so that their geometry is made; nothing is steered there.
    """
    own = cast("Mapping[str, Json]", spec["dictionaries"])
    values: JsonObject = {}
    for name, sets in known.items():
        pair = cast("Mapping[str, Json]", sets["dictionaries"])
        for side in SIDES:
            beside: JsonObject = {"coarse": own[side], "fine": pair[side]}
            values[f"{name}-{side}"] = {"dictionaries": beside}
    left_out = (*LEFT_OUT, HOLD_OVER, "steering", "calibration")
    kept = {name: one for name, one in spec.items() if name not in left_out}
    metadata: JsonObject = {
        "name": f"{experiment}-matches",
        "namespace": namespace,
        "labels": {MATCHES_LABEL: experiment},
        "generation": 1,
    }
    return {
        "apiVersion": API_VERSION, "kind": "Experiment", "metadata": metadata,
        "spec": {**kept, "matrix": {"match": values}},
    }  # fmt: skip


def distance(axis: str, spec: JsonObject, cell: JsonObject) -> float | None:
    """Return how far a cell is from its experiment on an axis whose values have an order."""
    if axis == "layer":
        return float(abs(_hook(cell).block - _hook(spec).block))
    if axis == "dtype":
        one, other = (DTYPES.index(str(value_at(s, "model.dtype"))) for s in (spec, cell))
        return float(abs(one - other))
    return None


def _seeds(spec: JsonObject, given: Sequence[str]) -> _Values:
    own = max([int(str(found)) for _, found in _seeds_of(spec)], default=0)
    numbers = given or [str(own + 1 + n) for n in range(SEEDS_TRIED)]
    if wrong := [one for one in numbers if not one.isascii() or not one.isdigit()]:
        raise ValueError(f"seed {wrong[0]!r} is no number")
    paths = [path for path, _ in _seeds_of(spec)]
    return {f"s{number}": dict.fromkeys(paths, int(number)) for number in numbers}


def _seeds_of(spec: JsonObject) -> list[tuple[str, Json]]:
    found = []
    for path in _SEED_FIELDS:
        try:
            found.append((path, value_at(spec, path)))
        except KeyError:
            continue
    return found


def _dtypes(spec: JsonObject, given: Sequence[str]) -> _Values:
    own = value_at(spec, "model.dtype")
    if wrong := [one for one in given if one not in DTYPES]:
        raise ValueError(f"dtype {wrong[0]!r}; expected {', '.join(DTYPES)}")
    return {one: {"model.dtype": one} for one in given or DTYPES if one != own}


def _layers(spec: JsonObject, given: Sequence[str]) -> _Values:
    own = _hook(spec)
    if wrong := [one for one in given if not one.isascii() or not one.isdigit()]:
        raise ValueError(f"layer {wrong[0]!r} is no number of a block")
    blocks = [int(one) for one in given] or [own.block - 1, own.block + 1]
    dictionaries = cast("Mapping[str, JsonObject]", spec["dictionaries"])
    anywhere: JsonObject = {side: {**one, "usableAt": "any"} for side, one in dictionaries.items()}
    return {
        f"block-{block}": {
            "hook": str(Hook(block, own.stream)),
            "dictionaries": anywhere,
        }
        for block in blocks
        if block >= 0 and block != own.block
    }


def _hook(spec: JsonObject) -> Hook:
    return Hook.parse(str(spec["hook"]))


def _prompts(spec: JsonObject, given: Sequence[str]) -> _Values:
    """Return the two halves of the prompts, every other text; none is in both."""
    if wrong := [one for one in given if one not in HALVES]:
        raise ValueError(f"prompts {wrong[0]!r}; expected {' or '.join(HALVES)}")
    sets = cast("JsonObject", spec["prompts"])
    found: _Values = {}
    for number, half in enumerate(HALVES):
        if given and half not in given:
            continue
        divided = {
            name: _half(one, number) if isinstance(one, dict) and "texts" in one else one
            for name, one in sets.items()
        }
        found[half] = {"prompts": divided}
    return found


def _half(given: JsonObject, number: int) -> JsonObject:
    """Return every other text of a set, or of its groups: texts of one group stay together."""
    texts = cast("list[str]", given["texts"])
    groups = cast("JsonObject", given.get("groups") or {})
    labels = cast("list[str]", groups.get("labels") or [])
    order = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    places = [order[label] for label in labels] or list(range(len(texts)))
    kept = [place % len(HALVES) == number for place in places]
    half: JsonObject = {"texts": cast("Json", list(compress(texts, kept)))}
    if labels:
        half["groups"] = {"labels": cast("Json", list(compress(labels, kept)))}
    elif groups:
        half["groups"] = groups
    return half


def _dictionaries(spec: JsonObject, given: Sequence[str]) -> _Values:
    if not given:
        raise ValueError("dictionary takes pairs: --axis dictionary=NAME:FOLDER,NAME:FOLDER")
    found: _Values = {}
    for one in given:
        name, folder = _named(one, "dictionary")
        pair = {side: {"path": f"{folder}/{side}"} for side in SIDES}
        found[name] = {"dictionaries": cast("Json", pair)}
    return found


def _models(spec: JsonObject, given: Sequence[str]) -> _Values:
    if not given:
        raise ValueError("model takes models: --axis model=NAME:FOLDER,NAME:FOLDER")
    own = cast("JsonObject", spec["model"])
    found: _Values = {}
    for one in given:
        name, folder = _named(one, "model")
        found[name] = {"model": {**own, "source": {"folder": folder}}}
    return found


def _named(word: str, axis: str) -> tuple[str, str]:
    name, colon, folder = word.partition(":")
    if not colon or not folder or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise ValueError(
            f"{axis} {word!r}; expected NAME:FOLDER, with lower-case letters and digits in NAME"
        )
    return name, folder.rstrip("/")


_VALUES = {
    "seed": _seeds,
    "dtype": _dtypes,
    "layer": _layers,
    "prompts": _prompts,
    "dictionary": _dictionaries,
    "model": _models,
}
