"""The code revision of a job: the revision of its stage's code that its digest names."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it stays empty in the rows that exist."""
    op.add_column("jobs", sa.Column("code_revision", sa.Integer))
