"""Ratings of generated texts, as a report saves them: what they are about, and what was said."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from loopscope.specs.canonical import digest

FORMAT = "loopscope ratings 1"
RATINGS_MAX = 20_000
RATER_CHARACTERS_MAX = 100
STRENGTH_MAX = 1_000_000
COLUMNS = ("prompt_id", "arm", "strength", "sample", "rating")
_COMMON = ("format", "experiment", "steering", "rater", "date", "seed")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Rated(NamedTuple):
    """A generated text by its place in ``steering_samples.parquet``."""

    prompt_id: str
    arm: str
    strength: float
    sample: int


@dataclass(frozen=True)
class RatingSet:
    """What one person said of texts, without knowing which arm made them.

    ``steering`` is the content digest of the steering whose texts were rated; ``date`` is ISO 8601;
    ``seed`` made the order in which they were shown. A rating is 1 where the text is about the
    concept, else 0.
    """

    experiment: str
    steering: str
    rater: str
    date: str
    seed: int
    ratings: dict[Rated, int]

    def to_json(self) -> dict[str, object]:
        """Return the form in which it is kept and saved."""
        rows = [{**asdict_of(text), "rating": rating} for text, rating in self.ratings.items()]
        common = {name: value for name, value in asdict(self).items() if name != "ratings"}
        return {"format": FORMAT, **common, "ratings": rows}

    @property
    def canonical_text(self) -> str:
        """The same as one line of JSON, which ``read_ratings`` reads."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)

    @property
    def digest(self) -> str:
        """Stands for all that it says."""
        return digest(self.to_json())


def asdict_of(text: Rated) -> dict[str, object]:
    """Return a text's place by the names of its columns."""
    return text._asdict()


def read_ratings(text: str) -> RatingSet:
    """Read what a report saved, as JSON or CSV. Raises ValueError: place, expected, found."""
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it is not JSON: {error}") from None
        except RecursionError:
            raise ValueError("it is JSON that is nested too deeply") from None
    else:
        document = _of_csv(text)
    return _checked(document)


def _of_csv(text: str) -> dict[str, Any]:
    """Return the same document; each row of the table repeats what all have in common."""
    try:
        rows = list(csv.DictReader(text.splitlines()))
    except csv.Error as error:
        raise ValueError(f"it is not CSV: {error}") from None
    named = set(rows[0]) if rows else set()
    missing = [name for name in (*_COMMON, *COLUMNS) if name not in named]
    if missing:
        raise ValueError(f"it lacks the column {missing[0]}; expected what a report saved")
    common: dict[str, Any] = {name: rows[0][name] for name in _COMMON}
    for number, row in enumerate(rows):
        other = next((name for name in _COMMON if row[name] != common[name]), None)
        if other is not None:
            raise ValueError(f"row {number + 1}: {other} is not that of the first row")
    try:
        common["seed"] = int(common["seed"])
        ratings = [
            {
                "prompt_id": row["prompt_id"],
                "arm": row["arm"],
                "strength": float(row["strength"]),
                "sample": int(row["sample"]),
                "rating": int(row["rating"]),
            }
            for row in rows
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"a number cannot be read: {error}") from None
    return {**common, "ratings": ratings}


def _checked(document: Any) -> RatingSet:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise ValueError(f"format: expected {FORMAT!r}, found {found!r}")
    for name in ("experiment", "steering", "rater", "date"):
        if not isinstance(document.get(name), str):
            raise ValueError(f"{name}: expected a text, found {document.get(name)!r}")
    if not _DIGEST.fullmatch(document["steering"]):
        raise ValueError(f"steering: expected a digest, found {document['steering'][:80]!r}")
    if not _NAME.fullmatch(document["experiment"]):
        raise ValueError(f"experiment: expected a name, found {document['experiment'][:80]!r}")
    rater = " ".join(document["rater"].split())
    if not rater or len(rater) > RATER_CHARACTERS_MAX or not rater.isprintable():
        raise ValueError(f"rater: expected a name of 1 to {RATER_CHARACTERS_MAX} characters")
    try:
        datetime.fromisoformat(document["date"])
    except ValueError:
        raise ValueError(f"date: expected ISO 8601, found {document['date'][:80]!r}") from None
    if not _is_count(document.get("seed")):
        raise ValueError(f"seed: expected a whole number, found {document.get('seed')!r}")
    rows = document.get("ratings")
    if not isinstance(rows, list) or not 1 <= len(rows) <= RATINGS_MAX:
        raise ValueError(f"ratings: expected 1 to {RATINGS_MAX:,} of them")
    ratings: dict[Rated, int] = {}
    for text, rating in _rows(rows):
        if text in ratings:
            raise ValueError(f"ratings: {' '.join(map(str, text))} is rated twice")
        ratings[text] = rating
    return RatingSet(
        document["experiment"],
        document["steering"],
        rater,
        document["date"],
        document["seed"],
        ratings,
    )


def _rows(rows: list[Any]) -> Iterator[tuple[Rated, int]]:
    for number, row in enumerate(rows):
        place = f"ratings[{number}]"
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected an object, found {row!r}")
        strength, rating = row.get("strength"), row.get("rating")
        if not isinstance(row.get("prompt_id"), str) or not isinstance(row.get("arm"), str):
            raise ValueError(f"{place}: expected prompt_id and arm as texts")
        if isinstance(strength, bool) or not isinstance(strength, int | float):
            raise ValueError(f"{place}.strength: expected a number, found {strength!r}")
        if isinstance(strength, int) and abs(strength) > STRENGTH_MAX:
            raise ValueError(f"{place}.strength: expected at most {STRENGTH_MAX:,}")
        if not _is_count(row.get("sample")):
            raise ValueError(
                f"{place}.sample: expected a whole number, found {row.get('sample')!r}"
            )
        if isinstance(rating, bool) or rating not in (0, 1):
            raise ValueError(f"{place}.rating: expected 0 or 1, found {rating!r}")
        yield Rated(row["prompt_id"], row["arm"], float(strength), row["sample"]), rating


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
