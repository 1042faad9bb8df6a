"""Artifacts carried from one store to another. What stands there already is left alone.

So a run that was cut off anywhere is repeated and goes on, and carrying twice carries nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.records import ArtifactRecord

TOKEN = 0
"""The attempt of who carries: no job has it, so the next resync removes what it leaves behind."""

Report = Callable[[ArtifactRecord], None]


@dataclass(frozen=True)
class Carried:
    """What was carried, and what could not be."""

    artifacts: int = 0
    bytes: int = 0
    standing: int = 0
    """So many stood in the target before."""
    shards: int = 0
    lost: tuple[str, ...] = ()
    """Why each that is missing or damaged in the source was left behind."""


def carry(
    source: ArtifactStore,
    target: ArtifactStore,
    records: Collection[ArtifactRecord],
    report: Report = lambda _: None,
) -> Carried:
    """Bring the artifacts of ``records``, each verified byte by byte, and all sealed shards.

    ``report`` is called for each artifact that was carried. Raises OSError.
    """
    fallen = target.fallen(records)
    lost, count, size = [], 0, 0
    for record in records:
        if record.digest not in fallen:
            continue
        try:
            _carry_one(source, target, record)
        except Corrupt as damage:
            lost.append(str(damage))
            continue
        count, size = count + 1, size + record.bytes
        report(record)
    return Carried(
        count, size, len(records) - len(fallen), carry_shards(source, target), tuple(lost)
    )


def carry_shards(source: ArtifactStore, target: ArtifactStore) -> int:
    """Bring the sealed shards of unfinished jobs; return how many were brought."""
    brought = 0
    for thing in source.contents():
        if thing.kind != "shards":
            continue
        kept, into = source.shards(thing.name), target.shards(thing.name)
        for name in sorted(set(kept.names()) - set(into.names())):
            path = kept.sealed(name)
            if path is not None:  # else its artifact was published meanwhile
                into.seal(name, lambda to, path=path: _copy(path, to))  # type: ignore[misc]
                brought += 1
    return brought


def _carry_one(source: ArtifactStore, target: ArtifactStore, record: ArtifactRecord) -> None:
    folder = source.fetch(record)
    staging = target.staging_folder(record.digest, TOKEN)
    for name in (*record.files, MANIFEST):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(folder / name, staging / name)
    target.publish(staging, record, target.prepare(staging, record))
    target.make_durable(record)
    source.let_go()
    target.let_go()


def _copy(path: Path, to: Path) -> None:
    try:
        shutil.copyfile(path, to)
    except FileNotFoundError as gone:
        raise Corrupt(f"{gone.filename} was removed while it was copied") from None
