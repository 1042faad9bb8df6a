"""Prompts of a capture in a plane, the steered directions as arrows, and the paths of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS, RESIDUAL
from loopscope.specs.artifacts.mapping import DIRECTIONS_VECTORS
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from loopscope.views.tensors import read_tensors
from loopscope.views.trace import Followed, Path, followed

Floats = NDArray[np.float64]
PROMPTS_MAX = 2_000
"""Prompts that are drawn; the plane is that of all of them."""


@dataclass(frozen=True)
class Arrow:
    """A direction of length 1 as it lies in a plane."""

    name: str
    x: float
    y: float

    @property
    def share(self) -> float:
        """How much of the direction's length lies in the plane."""
        return float(np.hypot(self.x, self.y))


@dataclass(frozen=True)
class PathInPlane:
    """A text that is followed: [steps, 2] before and behind its arm, about the prompts' mean."""

    path: Path
    before: Floats
    behind: Floats


@dataclass(frozen=True)
class Plane:
    """The prompts in one plane: ``points`` [prompts, 2] about their mean, in units of the stream.

    ``variance`` is the share of all variance along each axis, 0 to 1, ``axes`` what these are.
    ``children`` are arrows of single decoder rows; ``seen`` is the share of the steps' squared
    distances to the prompts' mean that lies in the plane, NaN without steps.
    """

    name: str
    axes: tuple[str, str]
    points: Floats
    variance: tuple[float, float]
    arrows: tuple[Arrow, ...]
    children: tuple[Arrow, ...] = ()
    paths: tuple[PathInPlane, ...] = ()
    seen: float = float("nan")


@dataclass(frozen=True)
class Navigator:
    """Planes of a capture; ``prompt_id``, ``text`` and ``condition`` belong to their points.

    ``hidden`` prompts are not drawn. ``note`` says why there is no arrow, empty if there are some;
    ``no_paths`` why no text is followed; ``problem`` why there is nothing at all.
    """

    planes: tuple[Plane, ...] = ()
    prompt_id: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    condition: tuple[str, ...] = ()
    hidden: int = 0
    note: str = ""
    no_paths: str = ""
    problem: str = ""


def navigator(view: ExperimentView) -> Navigator:
    """Return the plane of most variance, and that of the coarse and the fine direction if any."""
    stage = view.stage("capture")
    if not stage.available:
        return Navigator(problem=stage.problem)
    prompts = stage.table(CAPTURED_PROMPTS)
    try:
        tensors = read_tensors(stage.path(RESIDUAL.name))
        rows = mean_rows(tensors["residual"], tensors["prompt_index"], len(prompts))
    except (KeyError, ValueError, IndexError) as error:
        raise Corrupt(f"{stage.path(RESIDUAL.name)} cannot be read: {error}") from None
    if len(rows) < 3:
        return Navigator(problem="fewer than three prompts make no plane")
    directions, note = _directions(view, rows.shape[1])
    found = followed(view)
    if any(path.before.shape[1] != rows.shape[1] for path in found.paths):
        raise Corrupt(f"{view.stage('trace').folder} is not as wide as the capture")
    stream = Stream(rows.mean(axis=0), rows - rows.mean(axis=0), directions, found)
    planes = [stream.plane("principal plane", ("first", "second"), principal(stream.centred))]
    if {"coarse", "fine"} <= set(directions):
        both = spanned(directions["coarse"], directions["fine"])
        if both is not None:
            axes = ("along coarse", "along fine, less coarse")
            planes.append(stream.plane("plane of the directions", axes, both))
    drawn = np.linspace(0, len(rows) - 1, min(len(rows), PROMPTS_MAX)).round().astype(np.int64)
    kept = prompts.iloc[drawn]
    return Navigator(
        planes=tuple(replace(one, points=one.points[drawn]) for one in planes),
        prompt_id=tuple(map(str, kept["prompt_id"])),
        text=tuple(map(str, kept["text"])),
        condition=tuple(map(str, kept["condition"])),
        hidden=len(rows) - len(drawn),
        note=note,
        no_paths=found.problem,
    )


def mean_rows(residual: NDArray[np.generic], prompt: NDArray[np.generic], prompts: int) -> Floats:
    """Return the mean of each prompt's rows, float64 [prompts, d_model]. Raises ValueError."""
    number = np.bincount(prompt.astype(np.int64), minlength=prompts)
    if len(number) > prompts or not number.all():
        raise ValueError("its rows are not those of the prompts")
    total = np.zeros((prompts, residual.shape[1]))
    np.add.at(total, prompt.astype(np.int64), residual.astype(np.float64))
    return np.asarray(total / number[:, None])


def principal(centred: Floats) -> Floats:
    """Return the two directions of most variance, orthonormal [2, d_model].

    The eigenvectors of the smaller of both products; the largest entry of each is positive, so
    that equal data have equal pictures.
    """
    prompts, width = centred.shape
    if prompts <= width:
        basis = _last_two(centred @ centred.T) @ centred
    else:
        basis = _last_two(centred.T @ centred)
    length = np.linalg.norm(basis, axis=1, keepdims=True)
    basis = basis / np.where(length > 0, length, 1.0)
    largest = basis[np.arange(2), np.abs(basis).argmax(axis=1)]
    return np.asarray(basis * np.where(largest < 0, -1.0, 1.0)[:, None])


def _last_two(product: Floats) -> Floats:
    """Return the eigenvectors [2, width] of the largest eigenvalues, the largest first."""
    width = len(product)
    found = scipy.linalg.eigh(product, subset_by_index=(width - 2, width - 1))[1]
    return np.asarray(found[:, ::-1].T)


def spanned(first: Floats, second: Floats) -> Floats | None:
    """Return an orthonormal basis [2, d_model] of two unit directions; None where they are one."""
    rest = second - (second @ first) * first
    length = float(np.linalg.norm(rest))
    return None if length < 1e-3 else np.stack([first, rest / length])


@dataclass(frozen=True)
class Stream:
    """What is projected: prompts about their ``mean``, unit ``directions``, texts step by step."""

    mean: Floats
    centred: Floats
    directions: Mapping[str, Floats]
    followed: Followed

    def plane(self, name: str, axes: tuple[str, str], basis: Floats) -> Plane:
        """Return everything in the plane of an orthonormal basis [2, d_model]."""
        points = self.centred @ basis.T
        whole = float((self.centred**2).sum())
        along = (points**2).sum(axis=0) / (whole or 1.0)
        paths = tuple(
            PathInPlane(
                path, (path.before - self.mean) @ basis.T, (path.behind - self.mean) @ basis.T
            )
            for path in self.followed.paths
        )
        return Plane(
            name,
            axes,
            points,
            (float(along[0]), float(along[1])),
            tuple(
                Arrow(arm, *(basis @ vector).tolist()) for arm, vector in self.directions.items()
            ),
            self._children(basis),
            paths,
            self._seen(paths),
        )

    def _children(self, basis: Floats) -> tuple[Arrow, ...]:
        if not self.directions:
            return ()
        rows = zip(self.followed.names, self.followed.children, strict=True)
        return tuple(Arrow(name, *(basis @ row).tolist()) for name, row in rows)

    def _seen(self, paths: Sequence[PathInPlane]) -> float:
        whole = sum(float(((one.path.behind - self.mean) ** 2).sum()) for one in paths)
        inside = sum(float((one.behind**2).sum()) for one in paths)
        return inside / whole if whole else float("nan")


def _directions(view: ExperimentView, width: int) -> tuple[dict[str, Floats], str]:
    """Return the unit vectors of the arms; empty with the reason where they lie elsewhere."""
    if "writeHook" in view.experiment.spec:
        return {}, "the directions are written at another place than the prompts were read at"
    stage = view.stage("mapping")
    if not stage.available:
        return {}, "the mapping, which has the directions, is not available"
    if stage.artifact is None or DIRECTIONS_VECTORS.name not in stage.artifact.files:
        return {}, "no candidate passed the selection, so there is no direction"
    found = read_tensors(stage.path(DIRECTIONS_VECTORS.name))
    vectors = {
        name: np.asarray(found[name], dtype=np.float64)
        for name in ("coarse", "fine", "multi")
        if name in found
    }
    return {name: one for name, one in vectors.items() if one.shape == (width,)}, ""
