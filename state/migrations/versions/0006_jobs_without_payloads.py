"""What is to be known of a job stands in columns, and its payload behind them."""

from __future__ import annotations

import json

from alembic import op
from sqlalchemy import JSON, Column, String, inspect, text

from loopscope.state.job_facts import inputs_of, model_of, passes_of

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, move the payload to the end of the row, and fill in the jobs there are."""
    connection = op.get_bind()
    before = [c["name"] for c in inspect(connection).get_columns("jobs") if c["name"] != "payload"]
    order = (*before, "model", "passes", "inputs", "payload")
    with op.batch_alter_table("jobs", recreate="always", partial_reordering=[order]) as batch:
        batch.add_column(Column("model", String))
        batch.add_column(Column("passes", String))
        batch.add_column(Column("inputs", JSON))
    fill = text("update jobs set model = :model, passes = :passes, inputs = :inputs where id = :id")
    for job_id in connection.execute(text("select id from jobs")).scalars().all():
        one = text("select stage, payload from jobs where id = :id")
        stage, written = connection.execute(one, {"id": job_id}).one()
        payload = json.loads(written)
        facts = {
            "model": model_of(payload),
            "passes": passes_of(stage, payload),
            "inputs": json.dumps(inputs_of(payload)),
        }
        connection.execute(fill, {"id": job_id, **facts})
