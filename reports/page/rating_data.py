"""Data of the script that shows one opening at a time and has its texts rated."""

from __future__ import annotations

from loopscope.reports.page.samples import SAMPLES_SHOWN_MAX
from loopscope.specs.artifacts.steering import DISTRIBUTION_SHIFT
from loopscope.specs.json_values import Json
from loopscope.specs.ratings import FORMAT
from loopscope.views.experiment import ExperimentView, StageView

TOKENS_SHOWN_MAX = 5
ROWS_MAX = 10 * SAMPLES_SHOWN_MAX


def rating_data(view: ExperimentView) -> Json:
    """Return whose texts these are, and the likeliest next tokens after each opening by arm.

    None without a steering. Of each arm the weakest strength is there, of the random ones the
    first, as in the section *Next tokens*.
    """
    stage = view.stage("steering")
    if not stage.available or stage.artifact is None:
        return None
    return {
        "format": FORMAT,
        "experiment": view.name,
        "steering": stage.artifact.content_digest,
        "shifts": _shifts(stage),
    }


def _shifts(stage: StageView) -> dict[str, Json]:
    """Return by opening and arm: strength, then token, probability before and after."""
    table = stage.table(DISTRIBUTION_SHIFT)
    weakest = table.groupby("arm", sort=False)["strength"].transform("min")
    table = table[(table["strength"] == weakest) & ~table["arm"].str.match(r"random-[1-9]")]
    ordered = table.sort_values(["rank_after", "rank_before"], kind="stable")
    first = ordered.groupby(["prompt_id", "arm"], sort=False).head(TOKENS_SHOWN_MAX).head(ROWS_MAX)
    names = DISTRIBUTION_SHIFT.named(
        "prompt_id", "arm", "strength", "text", "probability_before", "probability_after"
    )
    arms: dict[str, dict[str, list[Json]]] = {}
    columns = (first[name].tolist() for name in names)
    for prompt, arm, strength, text, before, after in zip(*columns, strict=True):
        rows = arms.setdefault(str(prompt), {}).setdefault(str(arm), [float(strength)])
        rows.append([str(text), round(before, 4), round(after, 4)])
    return {prompt: {**of_prompt} for prompt, of_prompt in arms.items()}
