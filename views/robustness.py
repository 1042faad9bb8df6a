"""Arms beside one another under every sampling rule and every set of openings that was run.

A run is an experiment whose spec differs from the shown one in its sampling or its openings alone:
a cell of a sweep, or one applied by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import pandas

from loopscope.numerics.verdict.evidence import CONCEPT
from loopscope.numerics.verdict.robustness import ArmRates, arm_rates
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.steering import SCORES
from loopscope.specs.spec_json import SteeringJson
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import MISSING, count, interval, percent, signed, signed_interval
from loopscope.views.scored_cells import scored_cells
from loopscope.views.sensitivity.other_runs import openings_words, sampling_words

RUN = ["axis", "setting", "experiment"]
DECLARED = "declared"


@dataclass(frozen=True)
class Robustness:
    """``texts`` are the scores of all runs, ``arms`` what they come to; none without other runs."""

    texts: pandas.DataFrame
    arms: pandas.DataFrame

    @property
    def runs(self) -> list[tuple[str, str, str]]:
        """Axis, setting and experiment of each run, the shown one first."""
        return list(dict.fromkeys(self.arms[RUN].itertuples(index=False, name=None)))


def robustness_of(view: ExperimentView) -> Robustness:
    """Return the arms under every rule that was run. Raises Corrupt for an unreadable artifact."""
    own = view.stage("steering")
    if not own.available or not view.others_steered:
        return of_texts(_frame([]))
    rows = list(_scores(own, DECLARED, _setting(own), view.name))
    for run in view.others:
        stage = view.others_steered.get(run.name)
        if stage is not None and stage.available:
            words = (
                sampling_words(run.setting["steering.sampling"])
                if run.axis == "sampling"
                else openings_words(run.setting["steering.prompts"]["texts"])
            )
            rows += _scores(stage, run.axis, words, run.name)
    several = len({row["experiment"] for row in rows}) > 1
    return of_texts(_frame(rows if several else []))


def of_texts(texts: pandas.DataFrame) -> Robustness:
    """Return what the scores of ``robustness_texts.parquet`` come to."""
    found = [
        {**dict(zip(RUN, run, strict=True)), **asdict(arm)}
        for run, own in texts.groupby(RUN, sort=False)
        for arm in _arms(own)
    ]
    columns = [column.name for column in ROBUSTNESS.columns]
    return Robustness(texts, pandas.DataFrame(found, columns=columns))


def declared_scores(scores: pandas.DataFrame, spec: SteeringJson) -> pandas.DataFrame:
    """Return the rows of the shown run without what names it, from its own scores."""
    return pandas.DataFrame(_of_scores(scores, spec))


def _setting(stage: StageView) -> str:
    spec = cast(SteeringJson, stage.spec)
    return f"{sampling_words(spec['sampling'])}; {openings_words(spec['prompts']['texts'])}"


def _scores(
    stage: StageView, axis: str, setting: str, experiment: str
) -> Iterator[Mapping[str, object]]:
    try:
        found = list(_of_scores(stage.table(SCORES), cast(SteeringJson, stage.spec)))
    except (LookupError, ValueError, TypeError) as error:
        raise Corrupt(
            f"the scores of {experiment} are not what this version reads: {error}"
        ) from error
    named = {"axis": axis, "setting": setting, "experiment": experiment}
    yield from ({**named, **row} for row in found)


def _of_scores(scores: pandas.DataFrame, spec: SteeringJson) -> Iterator[Mapping[str, object]]:
    run = scored_cells(scores, spec, outcomes=(CONCEPT,))
    openings, samples = sorted(scores["prompt_id"].unique()), sorted(scores["sample"].unique())
    strengths = max(1, len(run.common_strengths()))
    for arm, values in run.by_arm(run.outcomes[CONCEPT]).items():
        for place, opening in enumerate(openings):
            for number, sample in enumerate(samples):
                yield {
                    "arm": arm,
                    "prompt_id": opening,
                    "sample": int(sample),
                    "group": None if run.group is None else int(run.group[place]),
                    "strengths": strengths,
                    "score": float(values[place, number]),
                }


def _arms(own: pandas.DataFrame) -> list[ArmRates]:
    """Return what each arm of one run did. Raises ValueError where a text is missing."""
    scores, openings = {}, own["prompt_id"].unique()
    for arm, rows in own.groupby("arm", sort=False):
        by_opening = rows.pivot(index="prompt_id", columns="sample", values="score")
        scores[str(arm)] = by_opening.loc[openings].to_numpy(dtype=np.float64)
    first = own.drop_duplicates("prompt_id")["group"]
    group = None if first.isna().any() else first.to_numpy(dtype=np.int64)
    return arm_rates(scores, int(own["strengths"].iloc[0]), group)


def _frame(rows: list[Mapping[str, object]]) -> pandas.DataFrame:
    columns = [column.name for column in ROBUSTNESS_TEXTS.columns]
    return pandas.DataFrame(rows, columns=columns).astype({"group": "Int64"})


HEAD = ("what", "setting", "arm", "openings", "concept", "effect", "wrong way", "experiment")


def robustness_rows(found: Robustness) -> list[list[str]]:
    """Return the cells below ``HEAD``: shares and the effect with their 95 % intervals."""
    return [
        [
            "" if row["axis"] == DECLARED else row["axis"],
            "as declared" if row["axis"] == DECLARED else row["setting"],
            row["arm"],
            count(row["openings"]),
            f"{percent(row['rate'], 0)} {interval(row['low'], row['high'])}",
            _effect(row),
            _wrong(row),
            row["experiment"],
        ]
        for row in found.arms.to_dict("records")
    ]


def robustness_sentence(found: Robustness) -> str:
    """Return what the panel is, and how often multi stays above unsteered text."""
    multi = found.arms[found.arms["arm"] == "multi"]
    surely = int((multi["effect_low"] > 0).sum())
    return (
        f"In {count(surely)} of {count(len(multi))} runs, each by another sampling rule or with "
        "other openings, multi surely raises the concept above unsteered text (95 % interval "
        "above 0). Intervals are of one row each, not corrected for one another"
    )


def _effect(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["effect"]):
        return MISSING
    return f"{signed(row['effect'])} {signed_interval(row['effect_low'], row['effect_high'])}"


def _wrong(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["wrong_way"]):
        return MISSING
    return f"{percent(row['wrong_way'], 0)} {interval(row['wrong_low'], row['wrong_high'])}"
