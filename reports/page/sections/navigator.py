"""Prompts, directions and the paths of texts in the plane."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from loopscope.reports.page.figures.paths import SHOWN_ARMS, paths_picture, shown
from loopscope.reports.page.figures.plane import plane_picture
from loopscope.reports.page.figures.steering import arm_class
from loopscope.specs.json_values import Json
from loopscope.views.experiment import ExperimentView
from loopscope.views.navigator import Navigator, PathInPlane, Plane, navigator


@dataclass(frozen=True)
class Told:
    """A text that is followed, as words: its arm with its colour, and its tokens."""

    arm: str
    css: str
    tokens: list[tuple[str, bool]]


@dataclass(frozen=True)
class NavigatorSection:
    """The planes with their pictures, the conditions that are drawn, and the texts on their way.

    ``opening`` is the one whose paths are drawn before another is chosen, ``told`` its texts;
    ``data`` is what a script draws the others from, None without any.
    """

    seen: Navigator
    planes: list[tuple[Plane, Markup]]
    conditions: list[str]
    paths: list[tuple[Plane, Markup]]
    opening: str
    told: list[Told]
    texts: int
    openings: int
    data: Json


def navigator_section(view: ExperimentView) -> NavigatorSection:
    """Return the planes of an experiment; none where there is no capture."""
    seen = navigator(view)
    with_paths = [plane for plane in seen.planes if plane.paths]
    drawn = with_paths[0].paths if with_paths else ()
    openings = _openings(view) if drawn else {}
    first = [one for one in drawn if one.path.opening == drawn[0].path.opening]
    return NavigatorSection(
        seen,
        [
            (plane, plane_picture(plane, seen.prompt_id, seen.text, seen.condition))
            for plane in seen.planes
        ],
        list(dict.fromkeys(seen.condition)),
        [
            (plane, paths_picture(plane, number, seen.condition))
            for number, plane in enumerate(with_paths)
        ],
        openings.get(drawn[0].path.opening, "") if drawn else "",
        [_told(one) for one in shown(first)],
        len(drawn),
        len({one.path.opening for one in drawn}),
        _data(with_paths, openings) if drawn else None,
    )


def _openings(view: ExperimentView) -> dict[str, str]:
    texts = view.stage("steering").spec["prompts"]["texts"]
    return {f"opening-{number:04d}": text for number, text in enumerate(texts)}


def _told(one: PathInPlane) -> Told:
    path = one.path
    steps = zip(path.tokens, path.steered, strict=True)
    return Told(path.arm, arm_class(path.arm), list(steps))


def _data(planes: list[Plane], openings: dict[str, str]) -> Json:
    """Return openings and texts with their coordinates in each plane, before and behind the arm."""
    followed = [one.path for one in planes[0].paths]
    texts: list[Json] = [
        {
            "opening": path.opening,
            "arm": path.arm,
            "css": arm_class(path.arm),
            "strength": path.strength,
            "tokens": list(path.tokens),
            "steered": [int(one) for one in path.steered],
            "before": [_rounded(plane.paths[number].before.tolist()) for plane in planes],
            "behind": [_rounded(plane.paths[number].behind.tolist()) for plane in planes],
        }
        for number, path in enumerate(followed)
    ]
    named = dict.fromkeys(path.opening for path in followed)
    return {
        "openings": [[name, openings.get(name, "")] for name in named],
        "first": list(SHOWN_ARMS),
        "texts": texts,
    }


def _rounded(rows: list[list[float]]) -> list[Json]:
    return [[float(f"{value:.6g}") for value in row] for row in rows]
