"""Artifacts move from a folder into a bucket and back; cut off anywhere, the same move goes on."""

from dataclasses import dataclass, field

import pytest
from obstore.store import MemoryStore

from loopscope.controller.maintenance.moving import move_artifacts, move_database
from loopscope.controller.runtime import AnotherController, leadership
from loopscope.state import artifact_place, failpoints, moves
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.consistency import compare
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import open_state
from tests.simulated import Simulation, settled_experiment

HERE, THERE = "s3://bucket/prefix", "s3://bucket/other"


@dataclass
class Buckets:
    """Buckets in memory, by their address."""

    stores: dict[str, MemoryStore] = field(default_factory=dict)

    def at(self, address):
        store = self.stores.setdefault(str(address), MemoryStore())
        return Bucket(store, store, str(address))


@pytest.fixture(autouse=True)
def buckets(monkeypatch):
    made = Buckets()
    monkeypatch.setattr(artifact_place, "bucket_at", made.at)
    return made


@pytest.fixture
def settled(tmp_path):
    """A settled experiment, its database closed; with a finished shard of another job."""
    simulation = settled_experiment(tmp_path / "state")
    simulation.state.artifacts.shards("a" * 64).seal("first", lambda path: path.write_bytes(b"s"))
    simulation.state.database.close()
    return tmp_path / "state"


def look(path):
    """Return what fsck finds beside leftovers, and how the store is called."""
    state = open_state(path)
    try:
        found = compare(state).findings
        return [f for f in found if not f.problem.startswith("Leftover")], state.artifacts.place
    finally:
        state.database.close()


def goes_on(path):
    """Open a controller on the state and let it settle; returns the stages that ran."""
    simulation = Simulation(path)
    simulation.clock.time += 1000
    simulation.controller.clock.time = simulation.clock.time
    ran = simulation.resync()
    assert simulation.get("france").ready
    simulation.state.database.close()
    return ran


def test_there_and_back_again_nothing_is_made_anew(settled):
    done = move_artifacts(settled, HERE)
    assert done.is_new and done.carried.artifacts == 6 and done.carried.shards == 1
    assert done.whole == 6 and done.left_at == str(settled / "artifacts")
    assert look(settled) == ([], HERE) and goes_on(settled) == []
    assert not move_artifacts(settled, HERE).is_new
    back = move_artifacts(settled, None)
    assert back.carried.standing == 6 and back.carried.artifacts == 0
    assert look(settled) == ([], str(settled / "artifacts")) and goes_on(settled) == []
    again = move_artifacts(settled, HERE)
    assert again.carried.standing == 6 and look(settled) == ([], HERE)


def test_from_one_bucket_to_another(settled):
    move_artifacts(settled, HERE)
    done = move_artifacts(settled, THERE)
    assert done.carried.artifacts == 6 and done.left_at == HERE
    assert look(settled) == ([], THERE) and goes_on(settled) == []


@pytest.mark.parametrize("way", ["into a bucket", "out of it", "to another"])
def test_cut_off_anywhere_the_state_can_be_opened_and_the_same_move_ends_it(settled, way):
    target = {"into a bucket": HERE, "out of it": None, "to another": THERE}[way]
    if way != "into a bucket":
        move_artifacts(settled, HERE)
    cuts = 0
    while cut_off(settled, target, after=cuts):
        cuts += 1
        between = moves._move_at(settled)
        if between is None or not between.is_switching:
            assert look(settled)[0] == [], f"after {cuts} steps"
        assert cuts < 200
    assert cuts > 5
    assert look(settled) == ([], target or str(settled / "artifacts"))
    assert moves._move_at(settled) is None and goes_on(settled) == []


class Cut(BaseException):
    """The process is gone."""


def cut_off(path, target, after):
    """Move, and die at a failpoint; False when the move ended before it came so far."""
    left = [after]

    def die(name):
        left[0] -= 1
        if left[0] < 0:
            raise Cut

    try:
        with failpoints.handled_by(die):
            move_artifacts(path, target)
    except Cut:
        return True
    return False


def test_a_damaged_artifact_stops_the_move_and_nothing_is_switched(settled):
    folder = next((settled / "artifacts/mapping").iterdir())
    file = next(path for path in folder.iterdir() if path.name != "manifest.json")
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(TerminalFailure, match="nothing was switched"):
        move_artifacts(settled, HERE)
    assert look(settled)[1] == str(settled / "artifacts")


def test_the_bucket_of_another_state_is_refused(settled, tmp_path):
    other = settled_experiment(tmp_path / "other")
    other.state.database.close()
    move_artifacts(tmp_path / "other", HERE)
    with pytest.raises(TerminalFailure, match="holds the artifacts of another state"):
        move_artifacts(settled, HERE)
    assert look(settled) == ([], str(settled / "artifacts"))
    assert move_artifacts(settled, THERE).is_new, "another place may be named after that"


def test_under_a_controller_nothing_is_moved(settled):
    state = open_state(settled)
    with leadership(state), pytest.raises(AnotherController):
        move_artifacts(settled, HERE)
    state.database.close()
    assert look(settled)[1] == str(settled / "artifacts")


def test_a_database_that_is_a_file_already_is_left_there(settled):
    assert not move_database(settled, None, now=5.0, lineage="a name").is_new


def test_the_command_says_what_it_did_and_refuses_what_is_not_there(settled, loopscope):
    code, said, _ = loopscope("migrate-state", "--from", "folder:", "--to", HERE)
    assert code == 0 and "6 artifacts" in said and "6 found whole" in said
    assert "still lies at" in said
    code, said, _ = loopscope("migrate-state", "--from", HERE, "--to", HERE)
    assert code == 0 and "nothing to do" in said
    code, _, wrong = loopscope("migrate-state", "--from", "folder:", "--to", HERE)
    assert code == 2 and "nothing of this state is there" in wrong
    code, _, wrong = loopscope("migrate-state", "--to", "mysql://x")
    assert code == 2 and "expected postgresql+psycopg" in wrong
    assert loopscope("--state", "none", "migrate-state", "--to", HERE)[0] == 2
