"""The names of objects in a bucket, below the prefix of a store.

``loopscope.json``                            what this is, and whose
``published/<stage>/<digest>``                which attempt is the artifact: the commit
``<stage>/<digest>/<attempt>/manifest.json``  the manifest of an attempt
``<stage>/<digest>/<attempt>/<sha256>``       a file of it
``uploading/<stage>/<digest>/<attempt>``      an attempt that may not be complete yet
``shards/<digest>/<name>/<sha256>``           a sealed shard of an unfinished action
``quarantine/…``, ``trash/…``, ``emptying/…`` attempts that are no artifacts now; foreign things
"""

from __future__ import annotations

import re

from loopscope.state.artifacts.manifests import MANIFEST

OWNER = "loopscope.json"
PUBLISHED, UPLOADING, SHARDS = "published", "uploading", "shards"
QUARANTINE, TRASH, EMPTYING, FOREIGN = "quarantine", "trash", "emptying", "foreign"
_ATTEMPT = re.compile(r"(\d+)-[0-9a-f]{8}")


def published(stage: str, digest: str) -> str:
    """Return the name of the object that says which attempt is the artifact."""
    return f"{PUBLISHED}/{stage}/{digest}"


def uploading(stage: str, digest: str, attempt: str) -> str:
    """Return the name of the object that says that an attempt uploads."""
    return f"{UPLOADING}/{stage}/{digest}/{attempt}"


def files_of(stage: str, digest: str, attempt: str) -> str:
    """Return under which name the files of an attempt lie."""
    return f"{stage}/{digest}/{attempt}"


def manifest_of(stage: str, digest: str, attempt: str) -> str:
    """Return the name of an attempt's manifest."""
    return f"{files_of(stage, digest, attempt)}/{MANIFEST}"


def shards_of(digest: str) -> str:
    """Return under which name the shards of an action lie."""
    return f"{SHARDS}/{digest}"


def is_attempt(name: str) -> bool:
    """Whether a name is that of an attempt: its fencing token, and a word that none else has."""
    return _ATTEMPT.fullmatch(name) is not None


def token_of(attempt: str) -> int | None:
    """Return the fencing token of an attempt, or None where it is no attempt."""
    found = _ATTEMPT.fullmatch(attempt)
    return int(found[1]) if found else None


def since_in(thrown: str) -> float:
    """Return when something was thrown away, by the last part of its name in the trash."""
    try:
        return float(thrown.rpartition("/")[2])
    except ValueError:
        return 0.0
