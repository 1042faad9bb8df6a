"""The tables. ``state/db/migrations`` builds exactly these (a test proves it)."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from loopscope.state.db.dialect.statements import only_where

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Integer, nullable=False),
)
"""``resource_version`` and ``fencing_token``: database-wide, only ever raised."""

objects = Table(
    "objects",
    metadata,
    Column("kind", String, primary_key=True),
    Column("namespace", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("uid", String, nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("resource_version", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("status", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("finalizers", JSON, nullable=False),
    Column("owner_kind", String),
    Column("owner_name", String),
    Column("owner_uid", String),
    Column("wanted_digest", String),
    Column("creation_timestamp", Float, nullable=False),
    Column("deletion_timestamp", Float),
)
Index("objects_by_owner", objects.c.owner_uid)
Index("objects_by_wanted_digest", objects.c.wanted_digest)

applied = Table(
    "applied",
    metadata,
    Column("kind", String, primary_key=True),
    Column("namespace", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("uid", String, nullable=False),
    Column("manager", String, nullable=False),
    Column("fields", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
)
"""Who applies an object, and what the last apply asked for: the base of the three-way merge."""
Index("applied_by_manager", applied.c.manager)

sources = Table(
    "sources",
    metadata,
    Column("path", String, primary_key=True),
    Column("fingerprint", String, nullable=False),
    Column("named", String, nullable=False),
    Column("objects", String, nullable=False),
)
"""Files as they were when they were last applied; lost, they are only read again."""

marks = Table(
    "marks",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
"""``reconciled_by``: the code under which everything was last seen to be as it should be."""

changes = Table(
    "changes",
    metadata,
    Column("resource_version", Integer, primary_key=True),
    Column("type", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("name", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("name", String, nullable=False),
    Column("type", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", String, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_seen_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    UniqueConstraint("kind", "namespace", "name", "reason", "message", name="events_once"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stage", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("state", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("name", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("token", Integer, nullable=False, server_default="0"),
    Column("worker", String),
    Column("lease_expires_at", Float),
    Column("reason", String),
    Column("message", String),
    Column("code_revision", Integer),
    Column("model", String),
    Column("passes", String),
    Column("inputs", JSON),
    Column("way", String),
    Column("payload", JSON, nullable=False),
    CheckConstraint(
        "state in ('pending','running','succeeded','failed','cancelled')", name="jobs_state"
    ),
)
"""``payload`` holds all texts of a job and stands last: SQLite reads a row up to the last column
that is asked for, and the loop asks for all others of every waiting job, twice a second.
``model``, ``passes``, ``inputs`` and ``way`` hold what is needed without reading it."""
Index(
    "jobs_one_active_per_digest",
    jobs.c.digest,
    unique=True,
    **only_where("state in ('pending','running')"),
)
Index("jobs_by_state", jobs.c.state)
Index("jobs_by_digest", jobs.c.digest)

job_starts = Table(
    "job_starts",
    metadata,
    Column("token", Integer, primary_key=True),
    Column("job_id", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
)
"""One row per claim: what the rate limit counts, across restarts."""

progress = Table(
    "progress",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("phase", String, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("unit", String, nullable=False),
    Column("phase_started_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("tokens", Integer),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", String, primary_key=True),
    Column("stage", String, nullable=False),
    Column("content_digest", String, nullable=False),
    Column("files", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

inputs = Table(
    "inputs",
    metadata,
    Column("reference_digest", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("reference", JSON, nullable=False),
    Column("facts", JSON),
    Column("reason", String),
    Column("message", String),
    Column("terminal", Integer, nullable=False),
    Column("observed_at", Float, nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("scope", String, primary_key=True),
    Column("created_at", Float, nullable=False),
)
"""What is paused: ``all``, ``stage/<stage>`` or ``<kind>/<namespace>/<name>``; lower-case kinds."""

controllers = Table(
    "controllers",
    metadata,
    Column("name", String, primary_key=True),
    Column("process", String, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("settings", JSON, nullable=False),
)
"""One row, ``leader``: the process that controls (``<pid>@<start time>``), and its limits."""

workers = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("device", String, nullable=False),
    Column("model", String),
)
"""Where each worker that was given a job computes, and the model that it holds since."""
