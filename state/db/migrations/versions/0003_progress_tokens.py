"""The number of tokens in progress rows, beside their own unit: speed is shown in tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it stays empty in the rows that exist."""
    op.add_column("progress", sa.Column("tokens", sa.Integer))
