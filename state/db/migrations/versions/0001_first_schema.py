"""The first schema: counters, objects, changes, events, jobs, artifacts, inputs."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Float,
    Integer,
    String,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _name_columns() -> list[Column]:  # type: ignore[type-arg]
    return [Column(name, String, nullable=False) for name in ("kind", "namespace", "name")]


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "counters",
        Column("name", String, primary_key=True),
        Column("value", Integer, nullable=False),
    )
    op.execute("insert into counters values ('resource_version', 0), ('fencing_token', 0)")
    _create_objects()
    _create_jobs()
    op.create_table(
        "artifacts",
        Column("digest", String, primary_key=True),
        Column("stage", String, nullable=False),
        Column("content_digest", String, nullable=False),
        Column("files", JSON, nullable=False),
        Column("metrics", JSON, nullable=False),
        Column("created_at", Float, nullable=False),
    )
    op.create_table(
        "inputs",
        Column("reference_digest", String, primary_key=True),
        Column("kind", String, nullable=False),
        Column("reference", JSON, nullable=False),
        Column("facts", JSON),
        Column("reason", String),
        Column("message", String),
        Column("terminal", Integer, nullable=False),
        Column("observed_at", Float, nullable=False),
    )


def _create_objects() -> None:
    op.create_table(
        "objects",
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
    op.create_index("objects_by_owner", "objects", ["owner_uid"])
    op.create_index("objects_by_wanted_digest", "objects", ["wanted_digest"])
    op.create_table(
        "changes",
        Column("resource_version", Integer, primary_key=True),
        Column("type", String, nullable=False),
        *_name_columns(),
    )
    op.create_table(
        "events",
        Column("id", Integer, primary_key=True),
        *_name_columns(),
        Column("type", String, nullable=False),
        Column("reason", String, nullable=False),
        Column("message", String, nullable=False),
        Column("count", Integer, nullable=False),
        Column("first_seen_at", Float, nullable=False),
        Column("last_seen_at", Float, nullable=False),
        UniqueConstraint("kind", "namespace", "name", "reason", "message", name="events_once"),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        Column("id", Integer, primary_key=True),
        Column("stage", String, nullable=False),
        Column("digest", String, nullable=False),
        Column("state", String, nullable=False),
        *_name_columns(),
        Column("generation", Integer, nullable=False),
        Column("payload", JSON, nullable=False),
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
        CheckConstraint(
            "state in ('pending','running','succeeded','failed','cancelled')", name="jobs_state"
        ),
    )
    op.create_index(
        "jobs_one_active_per_digest",
        "jobs",
        ["digest"],
        unique=True,
        sqlite_where=text("state in ('pending','running')"),
    )
    op.create_index("jobs_by_state", "jobs", ["state"])
    op.create_index("jobs_by_digest", "jobs", ["digest"])
    op.create_table(
        "job_starts",
        Column("token", Integer, primary_key=True),
        Column("job_id", Integer, nullable=False),
        Column("started_at", Float, nullable=False),
    )
    op.create_table(
        "progress",
        Column("job_id", Integer, primary_key=True),
        Column("phase", String, nullable=False),
        Column("done", Integer, nullable=False),
        Column("total", Integer, nullable=False),
        Column("unit", String, nullable=False),
        Column("phase_started_at", Float, nullable=False),
        Column("updated_at", Float, nullable=False),
    )
