"""The texts of a steering token by token, and where the stream went on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loopscope.specs.artifacts.mapping import DIRECTIONS
from loopscope.specs.artifacts.trace import OPENING_TOKENS, SAMPLE_TOKENS, STEPS, STREAM
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from loopscope.views.tensors import read_tensors

Floats = NDArray[np.float64]
ASKING = (
    "the spec has no trace. Add the line `trace: {}` to the experiment's spec and run it once more "
    "(`loopscope run FILE`): it reads the generated texts, and makes nothing else again"
)
"""What to do where there is none."""

TextKey = tuple[str, str, float, int]
"""Opening, arm, strength and sample."""


@dataclass(frozen=True)
class CutText:
    """Where each token of a text ends, in characters, and how many of them, first, are steered."""

    ends: tuple[int, ...]
    steered: int


@dataclass(frozen=True)
class OpeningToken:
    """What a token adds to an opening, and whether arms that steer act on it."""

    text: str
    steered: bool


@dataclass(frozen=True)
class Cut:
    """All texts and openings in tokens; ``problem`` is why there are none."""

    texts: Mapping[TextKey, CutText] = field(default_factory=dict)
    openings: Mapping[str, tuple[OpeningToken, ...]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Path:
    """A text from the last token of its opening on, as far as a next token was drawn.

    ``before`` is the stream at the hook [steps, d_model] as the blocks below bring it, ``behind``
    as the arm leaves it; ``tokens`` are what stands there, ``steered`` whether the arm acts.
    """

    opening: str
    arm: str
    strength: float
    tokens: tuple[str, ...]
    steered: tuple[bool, ...]
    before: Floats
    behind: Floats


@dataclass(frozen=True)
class Followed:
    """The texts that are followed, in the order of openings and arms.

    ``children`` are the unit decoder rows of the steered anchor's children, where arms act, and
    ``names`` what these are called.
    """

    paths: tuple[Path, ...] = ()
    children: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    names: tuple[str, ...] = ()
    problem: str = ""


def cut(view: ExperimentView) -> Cut:
    """Return the tokens of openings and texts. Raises Corrupt."""
    stage = view.stage("trace")
    if not stage.available:
        return Cut(problem=stage.problem if "trace" in view.stages else ASKING)
    texts = stage.table(SAMPLE_TOKENS)
    openings: dict[str, list[OpeningToken]] = {}
    for row in stage.table(OPENING_TOKENS).itertuples():
        openings.setdefault(str(row.prompt_id), []).append(
            OpeningToken(str(row.text), bool(row.steered))
        )
    return Cut(
        {
            (str(row.prompt_id), str(row.arm), float(row.strength), int(row.sample)): CutText(
                tuple(map(int, row.ends)), int(row.steered)
            )
            for row in texts.itertuples()
        },
        {name: tuple(tokens) for name, tokens in openings.items()},
    )


def followed(view: ExperimentView) -> Followed:
    """Return the texts that are followed step by step. Raises Corrupt."""
    stage = view.stage("trace")
    if not stage.available:
        return Followed(problem=stage.problem if "trace" in view.stages else ASKING)
    steps = stage.table(STEPS)
    tensors = read_tensors(stage.path(STREAM.name))
    try:
        stream = [np.asarray(tensors[name], dtype=np.float64) for name in ("residual", "steered")]
        children = np.asarray(tensors["children"], dtype=np.float64)
    except KeyError as error:
        raise Corrupt(f"{stage.path(STREAM.name)} has no tensor {error}") from None
    if any(len(one) != len(steps) for one in stream):
        raise Corrupt(f"{stage.path(STREAM.name)} has not as many rows as {STEPS.name}")
    named = ["prompt_id", "arm", "strength"]
    return Followed(
        tuple(
            Path(
                str(opening),
                str(arm),
                float(strength),
                tuple(map(str, rows["token"])),
                tuple(map(bool, rows["steered"])),
                *(one[rows.index.to_numpy()] for one in stream),
            )
            for (opening, arm, strength), rows in steps.groupby(named, sort=False)
        ),
        children,
        _names(view, len(children)),
    )


def _names(view: ExperimentView, count: int) -> tuple[str, ...]:
    """Return the names of the steered anchor's children. Raises Corrupt where these are others."""
    mapping = view.stage("mapping")
    if not mapping.available:
        return ()
    names = tuple(f"F-{child}" for child in mapping.document(DIRECTIONS)["children"])
    if len(names) != count:
        raise Corrupt(f"{STREAM.name} has {count} children, {DIRECTIONS.name} {len(names)}")
    return names
