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
    Table,
)

from loopscope.state.db.dialect.statements import LONG, Text, only_where, unique_together

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Integer, nullable=False),
)
"""Database-wide, only ever raised."""
COUNTED = ("fencing_token", "resource_version")

objects = Table(
    "objects",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("resource_version", Integer, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("status", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("finalizers", JSON, nullable=False),
    Column("owner_kind", Text),
    Column("owner_name", Text),
    Column("owner_uid", Text),
    Column("wanted_digest", Text),
    Column("creation_timestamp", Float, nullable=False),
    Column("deletion_timestamp", Float),
)
Index("objects_by_owner", objects.c.owner_uid)
Index("objects_by_wanted_digest", objects.c.wanted_digest)

applied = Table(
    "applied",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("uid", Text, nullable=False),
    Column("manager", Text, nullable=False),
    Column("fields", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
)
"""Who applies an object, and what the last apply asked for: the base of the three-way merge."""
Index("applied_by_manager", applied.c.manager)

revisions = Table(
    "revisions",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("replaced_at", Float, nullable=False),
)
"""Earlier specs of objects without an owner."""
Index("revisions_by_time", revisions.c.replaced_at)

sources = Table(
    "sources",
    metadata,
    Column("path", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("named", Text, nullable=False),
    Column("objects", Text, nullable=False),
)
"""Files as they were when they were last applied; lost, they are only read again."""

marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""``reconciled_by``: the code under which everything was last seen to be as it should be."""

changes = Table(
    "changes",
    metadata,
    Column("resource_version", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False, info=LONG),
    Column("count", Integer, nullable=False),
    Column("first_seen_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    unique_together("events_once", "kind", "namespace", "name", "reason", "message"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("token", Integer, nullable=False, server_default="0"),
    Column("worker", Text),
    Column("lease_expires_at", Float),
    Column("reason", Text),
    Column("message", Text),
    Column("code_revision", Integer),
    Column("model", Text),
    Column("passes", Text),
    Column("inputs", JSON),
    Column("way", Text),
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
    Column("phase", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("unit", Text, nullable=False),
    Column("phase_started_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("tokens", Integer),
)

preemptions = Table(
    "preemptions",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("by_job", Integer, nullable=False),
    Column("words", Text, nullable=False),
    Column("asked_at", Float, nullable=False),
)
"""Jobs that are to make room, or made it and wait; gone when they are claimed again. ``words`` say
for whom."""

shares = Table(
    "shares",
    metadata,
    Column("job_id", Integer, primary_key=True),
    Column("of_job", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("maker", Text, nullable=False),
)
"""Jobs that make shards of the action of another one, ``of_job``, on workers of one kind."""
Index("shares_by_job", shares.c.of_job)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("stage", Text, nullable=False),
    Column("content_digest", Text, nullable=False),
    Column("files", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
)

inputs = Table(
    "inputs",
    metadata,
    Column("reference_digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("reference", JSON, nullable=False),
    Column("facts", JSON),
    Column("reason", Text),
    Column("message", Text),
    Column("terminal", Integer, nullable=False),
    Column("observed_at", Float, nullable=False),
)

pauses = Table(
    "pauses",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
)
"""What is paused: ``all``, ``stage/<stage>`` or ``<kind>/<namespace>/<name>``; lower-case kinds."""

controllers = Table(
    "controllers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("process", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("settings", JSON, nullable=False),
)
"""One row, ``leader``: the process that controls (``<pid>@<start time>``), and its limits."""

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("model", Text),
    Column("maker", Text),
)
"""Where each worker that was given a job computes, the model that it holds since, and the kind that
it is, once it made shards that others may go on with."""
