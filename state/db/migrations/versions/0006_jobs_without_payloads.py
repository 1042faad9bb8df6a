"""Columns for the facts of a job, before its payload."""

from __future__ import annotations

import json

from alembic import op
from sqlalchemy import JSON, Column, String, inspect, text

from loopscope.state.job_facts import facts_of

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, move the payload to the end of the row, and fill in the jobs there are."""
    connection = op.get_bind()
    before = [c["name"] for c in inspect(connection).get_columns("jobs") if c["name"] != "payload"]
    order = (*before, "model", "passes", "inputs", "way", "payload")
    with op.batch_alter_table("jobs", recreate="always", partial_reordering=[order]) as batch:
        batch.add_column(Column("model", String))
        batch.add_column(Column("passes", String))
        batch.add_column(Column("inputs", JSON))
        batch.add_column(Column("way", String))
    fill = text(
        "update jobs set model = :model, passes = :passes, inputs = :inputs, way = :way "
        "where id = :id"
    )
    for job_id in connection.execute(text("select id from jobs")).scalars().all():
        one = text("select stage, payload from jobs where id = :id")
        stage, written = connection.execute(one, {"id": job_id}).one()
        facts = facts_of(stage, json.loads(written))
        facts["inputs"] = json.dumps(facts["inputs"])
        connection.execute(fill, {"id": job_id, **facts})
