"""The queue: what is paused, which process controls, and where workers compute."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, String

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "pauses",
        Column("scope", String, primary_key=True),
        Column("created_at", Float, nullable=False),
    )
    op.create_table(
        "controllers",
        Column("name", String, primary_key=True),
        Column("process", String, nullable=False),
        Column("started_at", Float, nullable=False),
        Column("settings", JSON, nullable=False),
    )
    op.create_table(
        "workers",
        Column("name", String, primary_key=True),
        Column("device", String, nullable=False),
        Column("model", String),
    )
