"""All looks at a verdict in one table: what would have changed the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import cast

import pandas

from loopscope.specs.artifacts.mapping import GATE
from loopscope.specs.artifacts.scoring import SCORING, TEXT_OUTCOMES
from loopscope.specs.artifacts.steering import ARMS, NEUTRAL_TEXT, SAMPLES, SCORES, VERDICT
from loopscope.specs.artifacts.verdict import Verdict
from loopscope.specs.spec_json import SteeringJson
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView
from loopscope.views.sensitivity.lexicon import lexicon_looks
from loopscope.views.sensitivity.look import Look, judged
from loopscope.views.sensitivity.min_difference import Range, verdict_by_min_difference
from loopscope.views.sensitivity.other_runs import other_run_looks
from loopscope.views.sensitivity.outcomes import outcome_looks
from loopscope.views.sensitivity.stored_run import StoredRun, stored_run

ORDER = ("minDifference", "lexicon", "outcome", "strength", "sampling", "openings", "anchor")
COLUMNS = tuple(field.name for field in fields(Look))


@dataclass(frozen=True)
class Looks:
    """The declared verdict first, then each look, by axis; empty where nothing was steered.

    ``ranges`` are those of the smallest practical difference, for a page that looks them up.
    """

    rows: tuple[Look, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def judged(self) -> list[Look]:
        """The looks that have a word, the declared one left out."""
        return [one for one in self.rows if one.source not in ("declared", "not run")]

    @property
    def changing(self) -> list[Look]:
        """The looks with another word than the declared one."""
        return [one for one in self.judged if one.changed]

    @property
    def not_run(self) -> list[Look]:
        """The looks that need another run."""
        return [one for one in self.rows if one.source == "not run"]

    def table(self) -> pandas.DataFrame:
        """Return one row a look; what is not known is missing."""
        rows = [[getattr(one, name) for name in COLUMNS] for one in self.rows]
        frame = pandas.DataFrame(rows, columns=list(COLUMNS))
        numbers = dict.fromkeys(("estimate", "low", "high"), "float64")
        return frame.astype({**numbers, "n": "Int64", "changed": "boolean"})


@dataclass(frozen=True)
class SteeredTables:
    """What a steering stored and a scoring of its texts: all that is computed rests on it.

    ``neutral`` is None where an earlier version did not write it, ``outcomes`` and ``primary``
    where there is no scoring.
    """

    scores: pandas.DataFrame
    samples: pandas.DataFrame
    neutral: pandas.DataFrame | None
    outcomes: pandas.DataFrame | None
    primary: str | None
    verdict: Verdict
    spec: SteeringJson


def looks_at(view: ExperimentView) -> Looks:
    """Return the looks at an experiment's verdict on steering; none where it is not there.

    Raises Corrupt where a whole artifact holds other tables or fields than this version reads.
    """
    if not view.stage("steering").available:
        return Looks()
    try:
        return _looks(view)
    except _UNREADABLE as error:
        raise Corrupt(
            f"an artifact of {view.experiment.key} does not hold what this version reads "
            f"({type(error).__name__}: {error}); its bytes are those that were recorded"
        ) from error


_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def _looks(view: ExperimentView) -> Looks:
    stage, mapping = view.stage("steering"), view.stage("mapping")
    tables = _tables(view)
    ranges = verdict_by_min_difference(tables.scores, tables.verdict, tables.spec)
    gate = mapping.document(GATE) if mapping.available else None
    others = other_run_looks(view.others, tables.spec, gate, stage.table(ARMS))
    return Looks(_ordered(tables.verdict, [*_computed(tables, ranges), *others]), tuple(ranges))


def computed_looks(tables: SteeredTables) -> tuple[Look, ...]:
    """Return the declared verdict and the looks that need no other run."""
    ranges = verdict_by_min_difference(tables.scores, tables.verdict, tables.spec)
    return _ordered(tables.verdict, [*_computed(tables, ranges)])


def _tables(view: ExperimentView) -> SteeredTables:
    stage, scoring = view.stage("steering"), view.stage("scoring")
    assert stage.artifact is not None  # a stage that is available has one
    return SteeredTables(
        scores=stage.table(SCORES),
        samples=stage.table(SAMPLES),
        neutral=stage.table(NEUTRAL_TEXT) if NEUTRAL_TEXT.name in stage.artifact.files else None,
        outcomes=scoring.table(TEXT_OUTCOMES) if scoring.available else None,
        primary=scoring.document(SCORING)["primary"] if scoring.available else None,
        verdict=stage.document(VERDICT),
        spec=cast(SteeringJson, stage.spec),
    )


def _ordered(verdict: Verdict, rows: Sequence[Look]) -> tuple[Look, ...]:
    """Return the declared verdict and behind it the looks by axis, held against its word."""
    declared = Look(
        "declared",
        "as declared",
        "declared",
        verdict["verdict"],
        verdict.get("contrast") or "",
        verdict.get("estimate"),
        verdict.get("low"),
        verdict.get("high"),
        verdict.get("n"),
        changed=False,
    )
    by_axis = sorted(rows, key=lambda one: ORDER.index(one.axis))
    return (declared, *(one.beside(verdict["verdict"]) for one in by_axis))


def _computed(tables: SteeredTables, ranges: Sequence[Range]) -> Iterator[Look]:
    """Yield the looks at the same texts; none where these do not give the verdict again."""
    further = {}
    if tables.outcomes is not None:
        by_name = tables.outcomes.groupby("outcome", sort=False)
        further = {str(name): rows.drop(columns="outcome") for name, rows in by_name}
    run = stored_run(tables.scores, tables.neutral, further, tables.verdict, tables.spec)
    if run is None:
        return
    yield from _min_differences(run, ranges)
    yield from lexicon_looks(run, tables.scores, tables.samples, tables.spec)
    yield from outcome_looks(run, tables.primary)
    strengths, unit = run.cells.common_strengths(), tables.spec["strengthUnit"]
    if len(strengths) > 1:
        for one in strengths:
            yield judged("strength", f"{one:g} alone", run.at_strength(one), unit)


def _min_differences(run: StoredRun, ranges: Sequence[Range]) -> Iterator[Look]:
    """Yield each range of values; difference and interval do not depend on it."""
    binding = run.judged().binding
    assert binding is not None  # the declared verdict was had again
    declared = run.rules.min_difference
    for one in ranges:
        span = f"{one.low:g}" + (f" to {one.high:g}" if one.high > one.low else "")
        yield Look(
            "minDifference",
            span,
            "declared" if one.low <= declared <= one.high else "same texts",
            one.verdict,
            binding.contrast,
            binding.estimate,
            binding.low,
            binding.high,
            binding.n,
        )
