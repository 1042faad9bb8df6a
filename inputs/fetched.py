"""References fetched ahead of time: where each one to a hub led, kept in the cache.

``loopscope fetch`` writes it when every file of a reference lies in the caches; a resolution
reads it where the hub is switched off or out of reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loopscope.inputs.dictionaries import READER_REVISION
from loopscope.inputs.files import default_cache, read_json_object, replace_text
from loopscope.inputs.models import CONVERTER_REVISIONS
from loopscope.specs.canonical import canonical_json, digest
from loopscope.specs.json_values import JsonObject


def remember_fetched(reference: str, facts: Mapping[str, object]) -> None:
    """Keep what the reference with this digest was found to be. Raises OSError."""
    path = _path(reference)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, canonical_json(dict(facts)))


def fetched(reference: str) -> JsonObject | None:
    """Return what ``remember_fetched`` kept, None if nothing that this version would read alike."""
    try:
        return read_json_object(_path(reference))
    except (OSError, ValueError):
        return None


def _path(reference: str) -> Path:
    revisions = {"converters": CONVERTER_REVISIONS, "reader": READER_REVISION}
    name = digest({"reference": reference, **revisions})
    return default_cache() / "loopscope" / "fetched" / f"{name}.json"
