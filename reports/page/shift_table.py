"""The table of each arm's effect on the next token, opening by opening."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import pandas

from loopscope.specs.artifacts.steering import DISTRIBUTION_SHIFT
from loopscope.views.experiment import StageView

OPENINGS_SHOWN_MAX = 5
TOKENS_SHOWN_MAX = 8
WHITE_SPACE = {" ": "\N{OPEN BOX}", "\n": "\\n", "\t": "\\t"}


class ShiftedToken(TypedDict):
    """One next token before and after the intervention: a row of ``distribution_shift.parquet``."""

    text: str
    probability_before: float
    probability_after: float
    rank_before: int
    new_arrival: bool


@dataclass(frozen=True)
class OpeningShift:
    """The likeliest next tokens after one opening under each arm, at its lowest strength."""

    opening: str
    arms: list[tuple[str, float, list[ShiftedToken]]]
    """Arm, strength, and the tokens by rank after the intervention."""


def shifts_by_opening(stage: StageView) -> tuple[list[OpeningShift], int]:
    """Return the first openings with their shifts, and how many openings are left out."""
    table = stage.table(DISTRIBUTION_SHIFT)
    openings = stage.spec["prompts"]["texts"]
    weakest = table.groupby("arm", sort=False)["strength"].transform("min")
    table = table[(table["strength"] == weakest) & ~table["arm"].str.match(r"random-[1-9]")]
    found = []
    for prompt_id, rows in table.groupby("prompt_id", sort=False):
        arms = [
            (str(arm), float(of_arm["strength"].iloc[0]), _first(of_arm))
            for arm, of_arm in rows.groupby("arm", sort=False)
        ]
        found.append(OpeningShift(openings[int(str(prompt_id).rpartition("-")[2])], arms))
        if len(found) == OPENINGS_SHOWN_MAX:
            break
    return found, max(0, len(openings) - len(found))


def _first(rows: pandas.DataFrame) -> list[ShiftedToken]:
    ordered = rows.sort_values(["rank_after", "rank_before"], kind="stable")
    records: list[ShiftedToken] = ordered.head(TOKENS_SHOWN_MAX).to_dict("records")
    return records


def shown_token(text: str) -> str:
    """Return a token so that it can be seen, also where it is nothing but white space."""
    if text.strip():
        return text
    return "".join(WHITE_SPACE.get(one, repr(one).strip("'")) for one in text)
