"""Progress says how many tokens are done, beside its own unit: that is what speed is told in."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there has not counted any."""
    op.add_column("progress", sa.Column("tokens", sa.Integer))
