"""The artifacts that the database knows. The folders on disk are the other half."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, select

from loopscope.state.db import tables
from loopscope.state.db.dialect.statements import upsert
from loopscope.state.records import ArtifactRecord, FileEntry

_BY_DIGEST = select(tables.artifacts).where(tables.artifacts.c.digest == bindparam("digest"))

_FOLLOWING = (
    select(tables.artifacts)
    .where(tables.artifacts.c.digest > bindparam("digest"))
    .order_by(tables.artifacts.c.digest)
    .limit(bindparam("most"))
)


def get(connection: Connection, digest: str) -> ArtifactRecord | None:
    """Return the record of an artifact, or None."""
    row = connection.execute(_BY_DIGEST, {"digest": digest}).first()
    return _record(row) if row else None


def listed(connection: Connection) -> list[ArtifactRecord]:
    """Return all known artifacts by stage and digest."""
    query = select(tables.artifacts).order_by("stage", "digest")
    return [_record(row) for row in connection.execute(query)]


def following(connection: Connection, digest: str, most: int) -> list[ArtifactRecord]:
    """Return the next known artifacts after a digest, in the order of digests."""
    found = connection.execute(_FOLLOWING, {"digest": digest, "most": most})
    return [_record(row) for row in found]


def digests(connection: Connection) -> set[str]:
    """Return the action digests of all known artifacts."""
    return set(connection.execute(select(tables.artifacts.c.digest)).scalars())


def bytes_by_namespace(connection: Connection, namespaces: Collection[str]) -> dict[str, int]:
    """Return what the artifacts take that objects of some namespaces rest on or wait for.

    One that several objects of a namespace want counts once there, and in each such namespace.
    """
    o, a = tables.objects.c, tables.artifacts.c
    query = (
        select(o.namespace, a.digest, a.files)
        .join(tables.artifacts, a.digest == o.wanted_digest)
        .where(o.namespace.in_(namespaces))
    )
    sizes = {
        (row.namespace, row.digest): sum(file["bytes"] for file in row.files.values())
        for row in connection.execute(query)
    }
    total = dict.fromkeys(namespaces, 0)
    for (namespace, _), size in sizes.items():
        total[namespace] += size
    return total


def record(connection: Connection, artifact: ArtifactRecord) -> None:
    """Write or replace the record of an artifact."""
    row = {
        "digest": artifact.digest,
        "stage": artifact.stage,
        "content_digest": artifact.content_digest,
        "files": {
            name: {"sha256": entry.sha256, "bytes": entry.bytes}
            for name, entry in artifact.files.items()
        },
        "metrics": artifact.metrics,
        "created_at": artifact.created_at,
    }
    upsert(connection, tables.artifacts, row)


def forget(connection: Connection, digest: str) -> None:
    """Remove the record of an artifact that is gone or corrupt."""
    connection.execute(delete(tables.artifacts).where(tables.artifacts.c.digest == digest))


def _record(row: Row[Any]) -> ArtifactRecord:
    return ArtifactRecord(
        stage=row.stage,
        digest=row.digest,
        content_digest=row.content_digest,
        files={name: FileEntry(f["sha256"], f["bytes"]) for name, f in row.files.items()},
        metrics=row.metrics,
        created_at=row.created_at,
    )
