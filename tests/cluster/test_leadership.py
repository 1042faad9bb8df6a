"""Several controllers on one PostgreSQL: one leads, and an old one changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from loopscope.state.db import leader
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.contract import LeaderElsewhere
from loopscope.state.db.dialect.postgresql import leadership
from loopscope.state.db.dialect.postgresql.address import address_of
from loopscope.state.db.dialect.postgresql.server import PostgresSchema
from loopscope.state.db.objects import raise_counter
from loopscope.state.db.rows import RowsInSqlite
from loopscope.state.failures import TerminalFailure
from tests.postgres_server import PostgresServer


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path):
    url = postgres.new_database()
    return lambda: open_database(PostgresSchema(address_of(url), tmp_path, RowsInSqlite()))


def raise_version(database: Database) -> None:
    with database.write() as connection:
        raise_counter(connection, "resource_version")


def cut_off(database: Database) -> None:
    """Let time pass in which the leader renews nothing."""
    address = database.dialect.address
    with psycopg.connect(address.conninfo, options=f"-c search_path={address.schema}") as changed:
        changed.execute("update leader_lease set renewed_at = clock_timestamp() - interval '1 h'")


def test_one_leads_and_the_other_is_told_who(place):
    first, second = place(), place()
    with first.dialect.leading("first"):
        with pytest.raises(LeaderElsewhere, match="first"), second.dialect.leading("second"):
            pass
        raise_version(first)
        raise_version(second)  # a command that applies is no controller
    with second.dialect.leading("second"):
        raise_version(second)


def test_a_leader_whose_lease_another_took_writes_nothing_any_more(place, monkeypatch):
    monkeypatch.setattr(leadership, "RENEWALS_PER_LEASE", 1e-6)  # as if it were stopped
    first, second = place(), place()
    with first.dialect.leading("first"):
        cut_off(second)
        with second.dialect.leading("second"):
            raise_version(second)
            with pytest.raises(TerminalFailure) as fenced:
                raise_version(first)
            assert fenced.value.reason == "NoLongerLeader"
        with pytest.raises(TerminalFailure, match="another controller leads"):
            raise_version(first)


def test_a_leader_that_was_cut_off_and_that_nobody_followed_goes_on(place):
    first = place()
    with first.dialect.leading("first"):
        cut_off(first)
        raise_version(first)


def test_a_lease_is_taken_after_the_last_write_of_its_holder(place, monkeypatch):
    monkeypatch.setattr(leadership, "RENEWALS_PER_LEASE", 1e-6)
    first, second = place(), place()
    took = threading.Event()

    def take() -> None:
        with second.dialect.leading("second"):
            took.set()

    with first.dialect.leading("first"):
        with first.write() as connection:
            raise_counter(connection, "resource_version")
            cut_off(second)
            standby = threading.Thread(target=take)
            standby.start()
            assert not took.wait(0.3)
        standby.join()
        assert took.is_set()


def test_whether_one_leads_is_read_from_the_lease(place):
    first = place()
    with first.write() as connection:
        leader.announce(connection, "far away", {}, now=0.0)
    with first.dialect.leading("far away"), first.read() as connection:
        assert leader.living(connection) is not None
    with first.read() as connection:
        assert leader.living(connection) is None
