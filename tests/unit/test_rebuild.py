"""``rebuild``: a lost database comes back from the specs and the artifacts, without a run."""

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from filelock import FileLock

from loopscope.controller.maintenance import rebuild as rebuild_module
from loopscope.controller.maintenance.fsck import examine
from loopscope.controller.maintenance.rebuild import rebuild
from loopscope.controller.plan.applying import load_admitted
from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.state import failpoints
from loopscope.state.artifacts.consistency import Finding
from loopscope.state.db.dialect.sqlite.whole_files import set_aside
from loopscope.state.failures import TerminalFailure
from tests.simulated import Simulation

NOW = 2_000_000.0
ARTIFACTS = 5
"""A capture, two decompositions, the geometry of their dictionaries, a mapping."""


class World:
    """A spec file with its inputs, and a state folder that was settled from it."""

    def __init__(self, folder, spec):
        self.folder = folder
        self.spec = spec
        self.loaded = load_admitted(spec, folder)
        simulation = Simulation(folder / "state")
        simulation.apply(self.loaded[0].manifest.canonical_spec(), "x")
        assert len(simulation.settle()) == ARTIFACTS
        self.before = self.contents(simulation)
        simulation.state.database.close()

    @property
    def state(self):
        return self.folder / "state"

    @property
    def database(self):
        return self.state / "state.db"

    def contents(self, simulation):
        return {r.key: (r.spec, r.status.artifact, r.ready) for r in simulation.objects()}

    def rebuild(self, **options):
        return rebuild(self.state, self.loaded, **{"now": NOW, "healthy_too": False, **options})

    def run_again(self):
        """Let a controller settle; return the stages that ran."""
        simulation = Simulation(self.state)
        simulation.clock.time = NOW
        ran = simulation.settle()
        self.after = self.contents(simulation)
        simulation.state.database.close()
        return ran


@pytest.fixture
def world(tmp_path, experiment):
    return World(tmp_path, experiment())


def overwrite(path):
    path.write_bytes(b"not a database, but long enough to be one" * 1000)


def cut(path):
    path.write_bytes(path.read_bytes()[:9000])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, overwrite], ids=lambda d: d.__name__)
def test_after_a_rebuild_nothing_is_left_to_do_and_everything_is_as_it_was(world, damage):
    damage(world.database)
    damaged = world.database.read_bytes() if world.database.exists() else None
    done = world.rebuild()
    assert done.taken_over == ARTIFACTS and done.damaged == []
    assert [(str(a.key), a.outcome) for a in done.applied] == [("experiment/x", "created")]
    assert (Path(done.set_aside).read_bytes() if done.set_aside else None) == damaged
    assert examine(world.state).findings == []
    assert world.run_again() == [] and world.after == world.before
    assert examine(world.state).findings == []


def test_a_damaged_artifact_is_set_aside_and_only_that_is_made_again(world):
    world.database.unlink()
    (file,) = (world.state / "artifacts" / "mapping").glob("*/pairs.json")
    file.write_text("[]")
    done = world.rebuild()
    assert done.taken_over == ARTIFACTS - 1
    (damaged,) = done.damaged
    assert damaged.subject.startswith("mapping/")
    assert world.run_again() == ["mapping"] and world.after == world.before


def test_a_bit_that_flipped_in_an_artifact_is_found_although_nothing_else_shows_it(world):
    world.database.unlink()
    (file,) = (world.state / "artifacts" / "mapping").glob("*/pairs.json")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    (damaged,) = world.rebuild().damaged
    assert damaged.subject.startswith("mapping/")


def test_a_healthy_database_is_only_set_aside_when_told_so(world):
    before = world.database.read_bytes()
    with pytest.raises(TerminalFailure) as refused:
        world.rebuild()
    assert refused.value.reason == "DatabaseHealthy" and "--replace-healthy" in str(refused.value)
    assert re.search(r"is whole and holds \d+ objects, with", str(refused.value))
    assert world.database.read_bytes() == before
    assert Path(world.rebuild(healthy_too=True).set_aside).read_bytes() == before
    assert world.run_again() == [] and world.after == world.before


def test_a_database_that_is_set_aside_takes_its_wal_along_and_can_be_read_there(tmp_path):
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t (x)")
    shutil.copytree(tmp_path, tmp_path / "crashed")
    connection.close()
    aside = set_aside(tmp_path / "crashed" / "state.db")
    assert not list((tmp_path / "crashed").glob("state.db")) and aside.name.endswith("-0")
    with sqlite3.connect(aside) as found:
        assert found.execute("select count(*) from t").fetchone() == (0,)


class Killed(BaseException):
    pass


def places_reached(world):
    places = []
    with failpoints.handled_by(places.append):
        world.rebuild()
    return len(places)


def test_a_rebuild_that_is_killed_anywhere_is_called_again_and_loses_nothing(world):
    world.database.unlink()
    shutil.copytree(world.state, world.folder / "before")
    count = places_reached(world)
    assert count > 10
    for nth in range(1, count + 1):
        shutil.rmtree(world.state)
        shutil.copytree(world.folder / "before", world.state)
        _killed_at(nth, world)
        try:
            world.rebuild()
        except TerminalFailure as refused:  # it had been through
            assert refused.reason == "DatabaseHealthy" and nth == count
        assert world.run_again() == [], nth
        assert world.after == world.before


def _killed_at(nth, world):
    arrivals = []

    def kill(name):
        arrivals.append(name)
        if len(arrivals) == nth:
            raise Killed

    with failpoints.handled_by(kill), pytest.raises(Killed):
        world.rebuild()


# -- the command -----------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_what_comes_next(world, loopscope):
    overwrite(world.database)
    code, _, err = loopscope("get", "experiments")
    assert code == 1 and "DatabaseDamaged" in err and "loopscope rebuild SPECS" in err
    code, out, err = loopscope("rebuild", world.spec, "--root", world.folder)
    assert (code, err) == (0, "")
    assert f"the old database lies at {world.state}/state.db.set-aside-0 now" in out
    assert "experiment/x created" in out and f"{ARTIFACTS} artifacts were taken over" in out
    assert "not restored: events" in out and "next: `loopscope run`" in out
    assert loopscope("get", "experiments")[0] == 0
    code, _, err = loopscope("rebuild", world.spec, "--root", world.folder)
    assert code == 1 and "--replace-healthy" in err


@pytest.mark.parametrize("damage", [Path.unlink, empty], ids=lambda d: d.__name__)
def test_commands_that_find_no_database_name_the_way_out(world, loopscope, damage):
    damage(world.database)
    code, _, err = loopscope("get", "experiments")
    assert code == 1 and "loopscope rebuild SPECS" in err


def test_a_refused_spec_leaves_the_damaged_database_where_it_is(world, loopscope):
    overwrite(world.database)
    before = world.database.read_bytes()
    world.spec.write_text("kind: Nothing\n")
    code, _, err = loopscope("rebuild", world.spec, "--root", world.folder)
    assert code == 2 and "kind" in err
    assert world.database.read_bytes() == before and not list(world.state.glob("*set-aside*"))


def test_a_controller_at_work_is_not_rebuilt_under(world, loopscope):
    overwrite(world.database)
    with FileLock(world.state / "controller.lock"):
        code, _, err = loopscope("rebuild", world.spec, "--root", world.folder)
    assert code == 1 and "stop it before a rebuild" in err


def test_the_same_object_in_two_files_is_refused(world, loopscope):
    world.database.unlink()
    second = world.spec.with_name("y.yaml")
    shutil.copy(world.spec, second)
    code, _, err = loopscope("rebuild", world.spec, second, "--root", world.folder)
    assert code == 2 and "name one of them" in err
    assert not world.database.exists()
    folder = world.spec.parent
    second.unlink()
    assert loopscope("rebuild", world.spec, folder, "--root", world.folder)[0] == 0


def test_what_is_of_older_rules_is_told_since_it_will_be_made_again(world, monkeypatch):
    world.database.unlink()
    assert world.rebuild().older == []
    world.database.unlink()
    before = CODE_REVISIONS["mapping"]
    monkeypatch.setitem(CODE_REVISIONS, "mapping", 99)
    monkeypatch.setitem(REVISION_NOTES, "mapping", {99: "another mapping"})
    done = world.rebuild()
    assert done.older == [f"mapping revision {before} -> 99: another mapping"]
    assert done.taken_over == ARTIFACTS and world.run_again() == ["mapping"]


def test_a_whole_database_of_an_older_schema_is_only_set_aside_when_told_so(world, monkeypatch):
    older = Finding("SchemaOutdated", "database", "it is older")
    monkeypatch.setattr(rebuild_module, "database_problem", lambda state: older)
    with pytest.raises(TerminalFailure, match="is whole and holds its objects, with"):
        world.rebuild()
    damaged = Finding("DatabaseUnreadable", "database", "it is damaged")
    monkeypatch.setattr(rebuild_module, "database_problem", lambda state: damaged)
    assert world.rebuild().set_aside
