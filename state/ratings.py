"""Ratings that people gave, in ``ratings/`` of a state folder: a file a set, named by its content.

They are work of people, so nothing collects them; ``ratings/<content digest of the steering>/``
stays where its artifact goes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from loopscope.specs.ratings import RatingSet, read_ratings
from loopscope.state.files import durable_replace

SETS_MAX = 200
"""Sets of ratings of one steering."""


def stored(folder: Path, steering: str) -> list[RatingSet]:
    """Return the sets of ratings of a steering in ``folder``, the oldest first.

    A file that cannot be read is left out: it is not what was stored.
    """
    found = []
    for path in sorted((folder / steering).glob("[0-9a-f]*.json"))[:SETS_MAX]:
        try:
            one = read_ratings(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if one.digest == path.stem and one.steering == steering:
            found.append(one)
    return sorted(found, key=lambda one: (one.date, one.rater, one.digest))


def store(folder: Path, ratings: RatingSet) -> bool:
    """Keep a set of ratings durably; return False where it was there.

    Raises ValueError when as many sets as may be are there.
    """
    own = folder / ratings.steering
    path = own / f"{ratings.digest}.json"
    if path.exists():
        return False
    for place in (folder, own):
        place.mkdir(mode=0o700, exist_ok=True)
    if len(list(own.glob("*.json"))) >= SETS_MAX:
        raise ValueError(f"{own} holds {SETS_MAX} sets of ratings, and no more are kept")
    temporary = own / f".{path.name}.{os.getpid()}.tmp"
    try:
        text = json.dumps(ratings.to_json(), indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
        durable_replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
