"""Jobs that make room for others, and whom for."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Float, Integer

from loopscope.state.db.dialect.statements import Text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; nobody was asked for anything before."""
    op.create_table(
        "preemptions",
        Column("job_id", Integer, primary_key=True),
        Column("by_job", Integer, nullable=False),
        Column("words", Text, nullable=False),
        Column("asked_at", Float, nullable=False),
    )
