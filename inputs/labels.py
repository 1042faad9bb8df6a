"""Labels of latents on Neuronpedia: where a dictionary stands there, and what was fetched.

Labels are kept in ``<cache>/loopscope/labels/``, one file a dictionary, each with the day on which
it was fetched. They are shown, and nothing else.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from filelock import FileLock

from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import LOCK_TIMEOUT_SECONDS, default_cache, replace_text
from loopscope.inputs.hub import hub_is_switched_off
from loopscope.inputs.registry import release_block
from loopscope.specs.canonical import digest
from loopscope.specs.json_values import Json
from loopscope.specs.legible import legible
from loopscope.specs.spec_json import DictionaryJson

SITE = "https://www.neuronpedia.org"
ANSWER_BYTES_MAX = 16 * 2**20
"""A latent's page comes with its activations on many texts."""
FILE_BYTES_MAX = 64 * 2**20
LABELS_MAX, CHARACTERS_MAX = 10, 300
TIMEOUT_SECONDS = 20.0
_SITE = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?")
_PLACE = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")


class Fetched(TypedDict):
    """The labels of one latent."""

    texts: list[str]
    on: str


@dataclass(frozen=True)
class Known:
    """What is known of a dictionary's labels, and of which site they are."""

    site: str
    labels: Mapping[int, Fetched]


def place_of(dictionary: DictionaryJson) -> str | None:
    """Return where a dictionary stands on Neuronpedia (``model/source``), by SAELens' registry."""
    try:
        block = release_block(dictionary["release"]) if "release" in dictionary else None
    except InputRefused:  # SAELens is not installed
        return None
    entries = block["saes"] if block is not None else []
    found = next((one for one in entries if str(one["id"]) == dictionary.get("id")), None)
    place = str(found.get("neuronpedia", "")) if found is not None else ""
    return place if _PLACE.fullmatch(place) else None


def known(place: str, cache: Path | None = None) -> Known:
    """Return the labels that were fetched; of no site but the usual one where there are none."""
    try:
        with _file(place, cache).open("rb") as stream:
            stored = json.loads(stream.read(FILE_BYTES_MAX))
        labels = {
            int(latent): Fetched(texts=_plain(one["texts"]), on=str(one["on"]))
            for latent, one in stored["labels"].items()
        }
        site = str(stored["site"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Known(SITE, {})
    return Known(site, labels) if _SITE.fullmatch(site) else Known(SITE, {})


def fetch(
    place: str, latents: Iterable[int], today: str, *, site: str = SITE, cache: Path | None = None
) -> Known:
    """Ask a site for the labels of some latents and keep them; return all that are known then.

    ``today`` is the date, as it is kept. Those of another site are forgotten. Raises
    ``InputRefused`` and ``ResolutionPending``.
    """
    if not _SITE.fullmatch(site):
        raise InputRefused("site", f"{site[:80]!r} is no site; write it as {SITE}")
    if hub_is_switched_off():
        raise ResolutionPending(
            "HubOffline", "no site is asked for labels while HF_HUB_OFFLINE is set; unset it"
        )
    found = {latent: Fetched(texts=_asked(site, place, latent), on=today) for latent in latents}
    path = _file(place, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_SECONDS):
        before = known(place, cache)
        kept = before.labels if before.site == site else {}
        together = {**kept, **found}
        stored = {"place": place, "site": site, "labels": together}
        replace_text(path, json.dumps(stored, indent=0, sort_keys=True))
    return Known(site, together)


def _file(place: str, cache: Path | None) -> Path:
    return (cache or default_cache()) / "loopscope" / "labels" / f"{digest(place)}.json"


def _asked(site: str, place: str, latent: int) -> list[str]:
    """Return the labels of one latent; none where the site does not know it."""
    address = f"{site}/api/feature/{place}/{latent}"
    try:
        request = urllib.request.Request(address, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(ANSWER_BYTES_MAX + 1)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        raise ResolutionPending("HubBusy", f"{site} answered {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException):
        raise ResolutionPending(
            "HubUnreachable", f"{site} cannot be reached; check the network and --site"
        ) from None
    try:
        return _labels(json.loads(content[:ANSWER_BYTES_MAX]))
    except (ValueError, RecursionError):
        raise ResolutionPending("HubUnreachable", f"what answers at {site} is not it") from None


def _labels(answer: Json) -> list[str]:
    explanations = answer.get("explanations") if isinstance(answer, dict) else None
    given = explanations if isinstance(explanations, list) else []
    return _plain(one.get("description") for one in given if isinstance(one, dict))


def _plain(texts: Iterable[object]) -> list[str]:
    """Return some labels, each on one line that a page and a terminal take as it is."""
    lines = (legible(" ".join(text.split())) for text in texts if isinstance(text, str))
    return list(dict.fromkeys(line[:CHARACTERS_MAX] for line in lines if line))[:LABELS_MAX]
