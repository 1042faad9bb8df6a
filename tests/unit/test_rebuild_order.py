"""A rebuild that is killed anywhere can be repeated: what says that it is done comes last."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.state.db.dialect.sqlite.whole_files import set_aside
from loopscope.state.folder import open_state
from tests.moments import power_fails, somebody
from tests.simulated import Crash
from tests.unit.test_rebuild import ARTIFACTS, World


@pytest.fixture
def world(tmp_path, experiment):
    made = World(tmp_path, experiment())
    made.database.unlink()
    return made


def contents(world):
    """Return how many objects and artifacts the database knows."""
    state = open_state(world.state)
    with state.database.read() as connection:
        found = len(objects.listed(connection)), len(artifact_index.listed(connection))
    state.database.close()
    return found


def test_a_rebuild_that_is_killed_is_repeated_until_everything_is_taken_over(world):
    """A database with objects counts as healthy: by then it must know all the artifacts."""
    nth, kills = 0, 0
    while True:
        nth += 1
        with somebody(power_fails, at="transaction-committed", nth=nth) as cut:
            try:
                done = world.rebuild()
            except Crash:
                kills += 1
        if not cut:
            break
        known = contents(world)
        assert known[0] == 0 or known[1] == ARTIFACTS
        if known[0]:
            break
    assert kills > ARTIFACTS, "also between any two artifacts"
    assert contents(world) == (1, ARTIFACTS) or done.taken_over == ARTIFACTS
    assert world.run_again() == [] and world.after == world.before


def test_with_the_first_object_all_artifacts_are_known(world):
    seen = []

    def look():
        seen.append(contents(world))

    with somebody(look, at="transaction-committed", again=True):
        world.rebuild()
    with_objects = [artifacts for found, artifacts in seen if found]
    assert (0, ARTIFACTS - 1) in seen and set(with_objects) == {ARTIFACTS}


# -- setting aside -----------------------------------------------------------------------------


@pytest.fixture
def crashed(tmp_path):
    """A database whose process died: its newest rows are in the log beside it."""
    path = tmp_path / "state.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("pragma journal_mode=wal")
    writer.execute("create table t (x)")
    writer.execute("insert into t values (1)")
    (tmp_path / "crashed").mkdir()
    for part in ("", "-wal", "-shm"):
        beside = Path(f"{path}{part}")
        (tmp_path / "crashed" / beside.name).write_bytes(beside.read_bytes())
    writer.close()
    return tmp_path / "crashed" / "state.db"


def rows(path):
    with closing(sqlite3.connect(path)) as found:
        return found.execute("select x from t").fetchall()


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_database_stays_in_its_place_until_all_that_belongs_to_it_has_gone(
    crashed, monkeypatch, moved
):
    """Killed in between, the next rebuild sets the rest aside: no new one meets an old log."""
    real, left = Path.rename, [moved]

    def killed(self, target):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Crash):
            set_aside(crashed)
    assert crashed.exists()
    set_aside(crashed)
    assert [
        path.name for path in crashed.parent.glob("state.db*") if "aside" not in path.name
    ] == []


def test_a_second_database_that_is_set_aside_takes_nothing_from_the_first(crashed):
    parts = {path.name: path.read_bytes() for path in crashed.parent.iterdir()}
    first = set_aside(crashed)
    for name, data in parts.items():
        (crashed.parent / name).write_bytes(data)
    crashed.with_name(f"{first.name[:-1]}1-wal").write_bytes(b"somebody's")
    second = set_aside(crashed)
    assert len({crashed, first, second}) == 3 and second.name.endswith("-2")
    assert rows(first) == rows(second) == [(1,)]
