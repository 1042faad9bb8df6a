"""What the simulated users apply, and the edits that they flip between."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

from loopscope.specs.keys import Key
from tests.simulated import canonical, capture_spec, experiment_spec, texts

Spec = dict[str, Any]
Specs = dict[Key, Spec]


def _key(kind: str, name: str) -> Key:
    return Key(kind, "default", name)


@functools.cache
def captures() -> list[Spec]:
    other = {"target": texts("Oslo is"), "neutral": texts("Bonn is")}
    return [
        capture_spec(),
        capture_spec(positions="all"),
        capture_spec(prompts=other),
        capture_spec(maxTokens=64),  # other work, the same content
        capture_spec(hook="blocks.9.hook_resid_post"),  # deeper than the model
    ]


def _decomposition(**changes: Any) -> Spec:
    spec = {"captureRef": {"name": "cap"}, "dictionary": {"path": "/coarse"}}
    return canonical("Decomposition", {**spec, **changes})


@functools.cache
def decompositions(path: str) -> list[Spec]:
    dictionary = {"path": path}
    return [
        _decomposition(dictionary=dictionary),
        _decomposition(dictionary=dictionary, selection={"top": 1}),
        _decomposition(dictionary=dictionary, selection={"minSelectivity": 0.99}),
        _decomposition(dictionary=dictionary, aggregation="max"),  # needs all positions
        _decomposition(dictionary={"path": f"{path}-other"}),
        _decomposition(dictionary=dictionary, captureRef={"name": "cap-too"}),
    ]


@functools.cache
def mappings() -> list[Spec]:
    def mapping(**changes: Any) -> Spec:
        sides = {"coarseRef": {"name": "coarse"}, "fineRef": {"name": "fine"}}
        return canonical("Mapping", {**sides, **changes})

    return [
        mapping(),
        mapping(minCosine=0.5),
        mapping(minCosine=0.25),  # the same children as the default
        mapping(gate={"minSubfeatures": 2}),
        mapping(gate={"policy": "enforce"}),  # the same work
    ]


@functools.cache
def experiments() -> list[Spec]:
    base = experiment_spec()
    other = {"target": texts("Oslo is"), "neutral": texts("Bonn is")}
    strengths = {**base["steering"], "strengths": [0.5, 1.0]}
    return [
        base,
        experiment_spec(steering=None),
        experiment_spec(mapping={"minCosine": 0.5}),
        experiment_spec(mapping={"minCosine": 0.5}, gate={"policy": "enforce"}),
        experiment_spec(positions="all", aggregation="max"),
        experiment_spec(prompts=other),
        experiment_spec(selection={"minSelectivity": 0.99}),
        experiment_spec(steering=strengths),
        experiment_spec(hook="blocks.9.hook_resid_post"),
    ]


Choices = dict[Key, Callable[[], list[Spec]]]


def _two_captures() -> Choices:
    """Two captures that often want the same work, and what rests on one of them."""
    return {
        _key("Capture", "cap"): captures,
        _key("Capture", "cap-too"): captures,
        _key("Decomposition", "coarse"): lambda: decompositions("/coarse"),
    }


def _chain() -> Choices:
    return {
        _key("Capture", "cap"): captures,
        _key("Decomposition", "coarse"): lambda: decompositions("/coarse")[:5],
        _key("Decomposition", "fine"): lambda: decompositions("/fine")[:5],
        _key("Mapping", "map"): mappings,
    }


def _experiment() -> Choices:
    return {_key("Experiment", "france"): experiments}


def _experiment_and_capture() -> Choices:
    return {
        _key("Experiment", "france"): experiments,
        _key("Capture", "cap"): captures,
    }


TOPOLOGIES = (_two_captures, _chain, _experiment, _experiment_and_capture)
_WEIGHTS = (4, 3, 2, 1)


def chosen(rng: random.Random) -> int:
    """Return the number of the topology that a seed plays with."""
    return rng.choices(range(len(TOPOLOGIES)), _WEIGHTS)[0]
