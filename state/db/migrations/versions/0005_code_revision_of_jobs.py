"""A job says which revision of its stage's code its digest names."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there never said."""
    op.add_column("jobs", sa.Column("code_revision", sa.Integer))
