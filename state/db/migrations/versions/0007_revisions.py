"""Earlier specs of objects."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, Integer, String

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. What an object was before its next edit is the first row of it."""
    op.create_table(
        "revisions",
        Column("uid", String, primary_key=True),
        Column("generation", Integer, primary_key=True),
        Column("spec", JSON, nullable=False),
        Column("bytes", Integer, nullable=False),
        Column("replaced_at", Float, nullable=False),
    )
    op.create_index("revisions_by_time", "revisions", ["replaced_at"])
