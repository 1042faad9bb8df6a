"""Stage *damage*: ordinary text, easy questions and other concepts under the arms of a steering."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.model.packing import packed_layers
from loopscope.numerics.statistics.multiple_tests import holm
from loopscope.numerics.statistics.paired import Contrast, paired_contrast, rate_interval
from loopscope.specs.artifacts.damage import CHOICES, DAMAGE
from loopscope.specs.artifacts.steering import ARMS, SAMPLES, SCORES
from loopscope.specs.choices import FAMILIES, Choice
from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.specs.payloads.damage import DamageMetrics, DamagePayload
from loopscope.worker.context import StageContext
from loopscope.worker.stages.damage.trying import Trial, chosen, margin
from loopscope.worker.stages.evidence.stage import write_rows
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun, prepare
from loopscope.worker.stages.tables import read_columns

Floats = NDArray[np.float64]
NEXT_TOKEN, CHOICE = "next_token", "choices"
NONE, MULTI = "none", "multi"


@dataclass(frozen=True)
class Measure:
    """A share of each cell that was tried, [units] or [units, samples], by its name.

    ``compared`` with the unsteered cell, unit by unit; ``corrected``: its p is one of the family.
    """

    name: str
    cells: Sequence[Cell]
    values: Sequence[Floats]
    compared: bool = True
    corrected: bool = True
    group: NDArray[np.int64] | None = None


def run(payload: DamagePayload, context: StageContext, out: Path) -> DamageMetrics:
    """Write what each cell does to each measure; return the status numbers.

    Raises TerminalFailure ``NotFinite``, and what ``prepare`` raises.
    """
    run = prepare(payload["work"], context)
    made = context.artifact("steering", payload["steered"]["digest"])
    cells = _cells(made)
    acting = [cell for cell in cells if cell.arm not in run.prompted]
    with packed_layers(run.model.causal.blocks):
        trial = Trial(run, acting)
        texts = trial.next_tokens(payload["texts"])
        answers = trial.answers(payload["choices"])
    measures = [
        Measure(NEXT_TOKEN, acting, list(texts)),
        *_of_choices(payload["choices"], answers, acting),
        *_of_openings(run, made, cells),
        *_of_sides(run, made, cells, payload["sides"]),
    ]
    rows = _rows(measures)
    write_rows(out, DAMAGE, rows)
    write_rows(out, CHOICES, _choice_rows(payload["choices"], answers, acting))
    return _metrics(rows, payload)


def _cells(made: Path) -> list[Cell]:
    arms = read_columns(made / ARMS.name)
    named = zip(arms["arm"], arms["strength"], arms["norm"], strict=True)
    return [Cell(str(arm), float(strength), float(norm)) for arm, strength, norm in named]


def _of_choices(
    items: Sequence[Choice], answers: Sequence[Sequence[Sequence[float]]], cells: Sequence[Cell]
) -> list[Measure]:
    """Return the share of items whose right option is the likeliest, of all and by family."""
    right = np.array(
        [
            [chosen(options, cell) == item["right"] for cell in range(len(cells))]
            for item, options in zip(items, answers, strict=True)
        ],
        dtype=np.float64,
    ).reshape(len(items), len(cells))
    family = np.array([item["family"] for item in items])
    found = [Measure(CHOICE, cells, list(right.T))]
    for name in FAMILIES:
        own = right[family == name]
        found.append(Measure(name, cells, list(own.T), corrected=False))
    return [one for one in found if len(one.values[0])] if cells else []


def _of_openings(run: SteeringRun, made: Path, cells: Sequence[Cell]) -> list[Measure]:
    """Return the share of openings with a lower, and a higher concept score than unsteered."""
    scores = read_columns(made / SCORES.name)
    by_cell = [_by_opening(run, scores, cell, scores["concept"]) for cell in cells]
    before = next((own for cell, own in zip(cells, by_cell, strict=True) if cell.arm == NONE), None)
    if before is None:
        return []
    others = [(cell, own.mean(axis=1)) for cell, own in zip(cells, by_cell, strict=True)
              if cell.arm != NONE]  # fmt: skip
    least = before.mean(axis=1)
    steered = [cell for cell, _ in others]
    group = _groups(run)
    return [
        Measure(name, steered, [own.astype(np.float64) for own in moved], compared=False,
                corrected=False, group=group)
        for name, moved in (
            ("wrong_way", [own < least for _, own in others]),
            ("right_way", [own > least for _, own in others]),
        )
    ]  # fmt: skip


def _groups(run: SteeringRun) -> NDArray[np.int64] | None:
    numbers = [opening.get("group") for opening in run.payload["openings"]]
    return None if None in numbers else np.array(numbers, dtype=np.int64)


def _by_opening(
    run: SteeringRun,
    table: Mapping[str, NDArray[np.generic]],
    cell: Cell,
    values: NDArray[np.generic],
) -> Floats:
    """Return a column of the texts of one cell as [openings, samples]."""
    own = (table["arm"] == cell.arm) & (table["strength"] == cell.strength)
    place = {one["id"]: number for number, one in enumerate(run.payload["openings"])}
    found = np.full((len(place), int(table["sample"].max()) + 1), np.nan)
    rows = zip(table["prompt_id"][own].tolist(), table["sample"][own].tolist(), strict=True)
    for (opening, sample), value in zip(rows, values[own].tolist(), strict=True):
        found[place[opening], sample] = value
    return found


def _of_sides(
    run: SteeringRun, made: Path, cells: Sequence[Cell], sides: Mapping[str, Sequence[str]]
) -> list[Measure]:
    """Return the share of texts with a word of each list of another concept."""
    samples = read_columns(made / SAMPLES.name)
    openings = {one["id"]: one["text"] for one in run.payload["openings"]}
    found = []
    for name, words in sides.items():
        pattern = lexicon_pattern(list(words))
        hits = np.array(
            [
                float(bool(mentions(pattern, str(text), openings[prompt])))
                for prompt, text in zip(samples["prompt_id"], samples["text"], strict=True)
            ]
        )
        values = [_by_opening(run, samples, cell, hits) for cell in cells]
        found.append(Measure(f"side:{name}", cells, values, group=_groups(run)))
    return found


def _rows(measures: Sequence[Measure]) -> list[tuple[object, ...]]:
    """Return the table: cell by cell, shares with intervals, changes with corrected p."""
    found: list[tuple[Measure, int, Contrast | None]] = [
        (measure, place, _contrast(measure, place))
        for measure in measures
        for place in range(len(measure.cells))
    ]
    tested = [one for one in found if one[2] is not None and one[0].corrected]
    adjusted = holm(np.array([contrast.p_two_sided for *_, contrast in tested if contrast]))
    p_of = {
        (one[0].name, one[1]): float(p) for one, p in zip(tested, adjusted.tolist(), strict=True)
    }
    rows: list[tuple[object, ...]] = []
    for measure, place, contrast in found:
        cell, values = measure.cells[place], _two_axes(measure.values[place])
        low, high = rate_interval(values, group=measure.group)
        change = (contrast.estimate, contrast.low, contrast.high) if contrast else (math.nan,) * 3
        p = p_of.get((measure.name, place), math.nan)
        shown = (float(values.mean()), low, high, *change, p)
        rows.append((cell.arm, cell.strength, measure.name, len(values), *shown))
    return rows


def _two_axes(values: Floats) -> Floats:
    return values[:, None] if values.ndim == 1 else values


def _contrast(measure: Measure, place: int) -> Contrast | None:
    """Return a cell's change against the unsteered one; None for that one, and without one."""
    before = next((n for n, cell in enumerate(measure.cells) if cell.arm == NONE), None)
    if not measure.compared or before is None or place == before:
        return None
    first, second = (_two_axes(measure.values[n]).mean(axis=1) for n in (place, before))
    return paired_contrast(measure.name, first, second, group=measure.group)


def _choice_rows(
    items: Sequence[Choice], answers: Sequence[Sequence[Sequence[float]]], cells: Sequence[Cell]
) -> list[tuple[object, ...]]:
    return [
        (
            cell.arm, cell.strength, number, item["family"], item["prompt"],
            item["options"][item["right"]].strip(),
            item["options"][chosen(options, place)].strip(), margin(options, place, item["right"]),
        )
        for place, cell in enumerate(cells)
        for number, (item, options) in enumerate(zip(items, answers, strict=True))
    ]  # fmt: skip


def _metrics(rows: Sequence[tuple[object, ...]], payload: DamagePayload) -> DamageMetrics:
    names = [column.name for column in DAMAGE.columns]
    table = [dict(zip(names, row, strict=True)) for row in rows]

    def of(measure: str, arm: str, column: str) -> list[float]:
        found = (one[column] for one in table if (one["measure"], one["arm"]) == (measure, arm))
        return [float(value) for value in found if isinstance(value, float)]

    losses = {measure: [-one for one in of(measure, MULTI, "change")]
              for measure in (NEXT_TOKEN, CHOICE)}  # fmt: skip
    bounds = [-one for measure in losses for one in of(measure, MULTI, "change_low")]
    limit = payload.get("maxLoss")
    unsteered = {measure: of(measure, NONE, "share") for measure in losses}
    return {
        "texts": len(payload["texts"]),
        "items": len(payload["choices"]),
        "next_token": _first(unsteered[NEXT_TOKEN]),
        "choices": _first(unsteered[CHOICE]),
        "multi_next_token_loss": max(losses[NEXT_TOKEN], default=None),
        "multi_choices_loss": max(losses[CHOICE], default=None),
        "holds": None if limit is None or not bounds else all(one < limit for one in bounds),
    }


def _first(values: Sequence[float]) -> float | None:
    return values[0] if values else None
