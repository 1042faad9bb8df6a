"""Field managers and what they applied, and the files as they were when last applied."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, String

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create three tables. Who applies the objects that exist shows with their next apply."""
    op.create_table(
        "applied",
        Column("kind", String, primary_key=True),
        Column("namespace", String, primary_key=True),
        Column("name", String, primary_key=True),
        Column("uid", String, nullable=False),
        Column("manager", String, nullable=False),
        Column("fields", JSON, nullable=False),
        Column("labels", JSON, nullable=False),
        Column("annotations", JSON, nullable=False),
    )
    op.create_index("applied_by_manager", "applied", ["manager"])
    op.create_table(
        "sources",
        Column("path", String, primary_key=True),
        Column("fingerprint", String, nullable=False),
        Column("named", String, nullable=False),
        Column("objects", String, nullable=False),
    )
    op.create_table(
        "marks",
        Column("name", String, primary_key=True),
        Column("value", String, nullable=False),
    )
