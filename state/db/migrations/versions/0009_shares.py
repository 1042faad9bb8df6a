"""Jobs that make shards of another one's action, and the kind of each worker."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer

from loopscope.state.db.dialect.statements import Text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the column; no work was shared before, and no kind known."""
    op.create_table(
        "shares",
        Column("job_id", Integer, primary_key=True),
        Column("of_job", Integer, nullable=False),
        Column("number", Integer, nullable=False),
        Column("count", Integer, nullable=False),
        Column("maker", Text, nullable=False),
    )
    op.create_index("shares_by_job", "shares", ["of_job"])
    op.add_column("workers", Column("maker", Text))
