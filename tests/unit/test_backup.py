"""A backup is the state of one moment, taken while others work, and comes back whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.controller.maintenance import backup as backups
from loopscope.controller.maintenance.backup import SNAPSHOT, back_up, restore_backup
from loopscope.controller.runtime import AnotherController, leadership
from loopscope.state import failpoints
from loopscope.state.artifacts.carrying import carry
from loopscope.state.artifacts.consistency import compare
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import BACKUP
from loopscope.state.register import append, registrations
from tests.simulated import Simulation, capture_spec, settled_experiment

RATINGS = "ratings/0a/0b.json"


@pytest.fixture
def settled(tmp_path):
    """A settled experiment with a rating, a registration and limits."""
    simulation = settled_experiment(tmp_path / "state")
    rating = simulation.state.path / RATINGS
    rating.parent.mkdir(parents=True)
    rating.write_text('{"a": "rating"}')
    append(simulation.state.register, intention(), "2026-11-30")
    (tmp_path / "state.conf").write_text("slots: {cpu: 2}\n")
    return simulation


def intention():
    names = ("experiment", "loopscope", "specs", "inputs", "code", "hypotheses", "plan", "note")
    return {name: "default/france" if name == "experiment" else {} for name in names}


def taken(simulation, target, **changes):
    given = {"now": 5.0, "lineage": "a name", "force": False, **changes}
    return back_up(simulation.state, target, **given)


def reason(call, *given, **options):
    with pytest.raises(TerminalFailure) as told:
        call(*given, **options)
    return told.value.reason


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_a_lost_state_comes_back_whole_and_has_nothing_left_to_do(settled, tmp_path):
    done = taken(settled, tmp_path / "backup")
    assert done.carried.artifacts == 6 and done.files == 2 and not done.carried.lost
    before, chain = settled.rows(), registrations(settled.state.register)
    settled.state.database.close()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state.conf").unlink()
    found, carried = restore_backup(tmp_path / "state", tmp_path / "backup", force=False)
    assert found.is_new and carried.artifacts == 6
    again = Simulation(tmp_path / "state")
    again.clock.time = settled.clock.time
    assert again.rows() == before
    assert registrations(again.state.register) == chain
    assert (again.state.path / RATINGS).read_text() == '{"a": "rating"}'
    assert (tmp_path / "state.conf").read_text() == "slots: {cpu: 2}\n"
    assert compare(again.state).findings == []
    assert again.settle() == [] and again.get("france").ready


def test_a_second_backup_copies_only_what_is_new_and_drops_what_is_gone(settled, tmp_path):
    target = tmp_path / "backup"
    taken(settled, target)
    assert taken(settled, target).carried.artifacts == 0
    settled.apply(capture_spec(hook="blocks.1.hook_resid_post"), "more", "Capture")
    assert settled.settle() == ["capture"]
    gone = settled.state.artifacts.folder("geometry", "0" * 64)
    (target / "artifacts/geometry" / gone.name).mkdir()
    done = taken(settled, target)
    assert (done.carried.artifacts, done.carried.standing) == (1, 6)
    assert not (target / "artifacts/geometry" / gone.name).exists()
    kept, own = files(target / "artifacts"), files(settled.state.path / "artifacts")
    assert kept == own


def test_it_is_taken_while_a_controller_leads_and_a_job_runs(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    with leadership(simulation.state):
        taken(simulation, tmp_path / "backup")
    restore_backup(tmp_path / "second", tmp_path / "backup", force=False)
    second = Simulation(tmp_path / "second")
    second.clock.time = simulation.clock.time + 100
    assert second.get("france") and second.settle()[0] == "capture"


def test_finished_shards_of_a_running_job_come_along(settled, tmp_path):
    settled.state.artifacts.shards("a" * 64).seal("first", lambda path: path.write_bytes(b"half"))
    assert taken(settled, tmp_path / "backup").carried.shards == 1
    restore_backup(tmp_path / "second", tmp_path / "backup", force=False)
    path = FolderStore(tmp_path / "second/artifacts").shards("a" * 64).sealed("first")
    assert path is not None and path.read_bytes() == b"half"


def test_what_is_collected_while_it_is_copied_lets_it_begin_again(settled, tmp_path, monkeypatch):
    settled.delete()
    settled.settle()
    record = backups._records(_database(settled, tmp_path))[0]
    calls = []

    def carry_behind_a_collector(source, target, records, report):
        calls.append(len(records))
        if len(calls) == 1:
            with settled.state.database.write() as connection:
                backups.artifact_index.forget(connection, record.digest)
                shutil.rmtree(settled.state.artifacts.folder(record.stage, record.digest))
        return carry(source, target, records, report)

    monkeypatch.setattr(backups, "carry", carry_behind_a_collector)
    done = taken(settled, tmp_path / "backup")
    assert calls == [6, 5] and not done.carried.lost


def _database(simulation, folder):
    copy = folder / "looked" / "state.db"
    copy.parent.mkdir()
    simulation.state.database.dialect.copy_to(copy)
    return copy


def test_a_damaged_artifact_is_named_and_left_behind(settled, tmp_path):
    folder = settled.artifact_folder("france-mapping")
    path = next(p for p in folder.iterdir() if p.name != "manifest.json")
    path.write_bytes(b"x" * path.stat().st_size)
    done = taken(settled, tmp_path / "backup")
    (why,) = done.carried.lost
    assert "mapping/" in why and done.carried.artifacts == 5


def test_killed_anywhere_the_backup_before_stays_whole_and_the_same_command_ends_it(
    settled, tmp_path
):
    target = tmp_path / "backup"
    taken(settled, target)
    before = files(target)
    settled.apply(capture_spec(hook="blocks.1.hook_resid_post"), "more", "Capture")
    settled.settle()
    settled.state.database.close()
    for place in ("staging-create", "artifact-rename", "fsync", "replace"):
        killed(settled.state.path, target, place)
        restore_backup(tmp_path / place, target, force=False)
        there = Simulation(tmp_path / place)
        assert compare(there.state).findings == []
    assert files(target)[Path(SNAPSHOT)] == before[Path(SNAPSHOT)]
    assert taken(settled, target).carried.lost == ()
    restore_backup(tmp_path / "last", target, force=False)
    assert Simulation(tmp_path / "last").get("more", "Capture").ready


def killed(state, target, place):
    """Take a backup in a process that is killed at a failpoint."""
    program = f"""
import os, signal
from pathlib import Path
from loopscope.controller.maintenance.backup import back_up
from loopscope.specs.keys import API_VERSION
from loopscope.state import failpoints
from loopscope.state.folder import open_state
state = open_state(Path({str(state)!r}))
def die(name):
    if name == {place!r}:
        os.kill(os.getpid(), signal.SIGKILL)
with failpoints.handled_by(die):
    back_up(state, Path({str(target)!r}), now=6.0, lineage="a name", force=False)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL


def test_a_restore_that_was_killed_is_repeated(settled, tmp_path):
    taken(settled, tmp_path / "backup")

    class Killed(BaseException):
        pass

    def die(name):
        if name == "replace" and (tmp_path / "second/artifacts/mapping").exists():
            raise Killed

    with failpoints.handled_by(die), pytest.raises(Killed):
        restore_backup(tmp_path / "second", tmp_path / "backup", force=False)
    done, _ = restore_backup(tmp_path / "second", tmp_path / "backup", force=False)
    assert done.is_new and compare(Simulation(tmp_path / "second").state).findings == []


def test_a_folder_with_other_things_and_the_state_folder_itself_are_refused(settled, tmp_path):
    other = tmp_path / "diary"
    other.mkdir()
    (other / "monday").write_text("rain")
    assert reason(taken, settled, other) == "SnapshotNotWritable"
    assert files(other) == {Path("monday"): b"rain"}
    inside = settled.state.path / "backup"
    assert reason(taken, settled, inside) == "SnapshotNotWritable" and not inside.exists()


def test_a_backup_of_another_state_is_not_replaced_unasked(settled, tmp_path):
    taken(settled, tmp_path / "backup")
    stranger = Simulation(tmp_path / "stranger")
    stranger.apply(capture_spec(), "own", "Capture")
    before = files(tmp_path / "backup")
    refused = reason(taken, stranger, tmp_path / "backup", lineage="another")
    assert refused == "SnapshotNewer" and files(tmp_path / "backup") == before
    taken(stranger, tmp_path / "backup", force=True)
    assert json.loads((tmp_path / "backup" / SNAPSHOT).open("rb").readline())["lineage"]


def test_two_backups_to_one_folder_do_not_mix(settled, tmp_path):
    target = tmp_path / "backup"
    backups._make(settled.state, target)
    with backups._alone(target):
        assert reason(taken, settled, target) == "SnapshotNotWritable"
    assert not (target / SNAPSHOT).exists() and (target / BACKUP).exists()


WORKING = [
    "apply -f specs --root .",
    "run specs --root .",
    "controller",
    "delete experiment x",
    "pause --all",
    "gc --yes",
    "backup elsewhere",
    "rebuild specs",
    "restore state --force",
    "get all",
    "queue",
]


def test_a_backup_is_no_state_to_work_in(tmp_path, loopscope, experiment):
    """Else the next backup would take away as unneeded what was made in its folder."""
    target = tmp_path / "state"
    taken(Simulation(tmp_path / "mine"), target)
    experiment()
    before = files(target)
    for command in WORKING:
        code, _, told = loopscope(*command.split())
        assert code != 0 and f"{target.name} is a backup" in told, (command, told)
        assert f"restore {target}" in told or "restore state" in told
        assert files(target) == before


def test_nor_is_one_replaced_that_was_worked_in_all_the_same(tmp_path):
    mine, target = Simulation(tmp_path / "mine"), tmp_path / "backup"
    taken(mine, target)
    (target / "state.db").write_bytes((mine.state.path / "state.db").read_bytes())
    before = files(target)
    assert reason(taken, mine, target, force=True) == "SnapshotNotWritable"
    assert files(target) == before


def test_a_backup_that_was_never_whole_is_called_so(tmp_path, loopscope):
    target = tmp_path / "backup"
    backups._make(Simulation(tmp_path / "mine").state, target)
    code, _, told = loopscope("restore", target)
    assert code == 1 and "never whole" in told and not (tmp_path / "state").exists()


def test_a_registration_of_another_chain_is_not_replaced(settled, tmp_path):
    taken(settled, tmp_path / "backup")
    second = Simulation(tmp_path / "second")
    append(second.state.register, {**intention(), "note": "other"}, "2026-12-01")
    second.state.database.close()
    before = registrations(second.state.register)
    refused = reason(restore_backup, tmp_path / "second", tmp_path / "backup", force=True)
    assert refused == "StateNewer" and registrations(second.state.register) == before
    assert Simulation(tmp_path / "second").objects() == []


def test_under_a_controller_nothing_is_restored(settled, tmp_path):
    taken(settled, tmp_path / "backup")
    with leadership(settled.state), pytest.raises(AnotherController):
        restore_backup(settled.state.path, tmp_path / "backup", force=True)


def test_a_full_disk_is_told_in_words_and_leaves_the_backup_before(settled, tmp_path, monkeypatch):
    target = tmp_path / "backup"
    taken(settled, target)
    before = files(target)[Path(SNAPSHOT)]

    def full(*_):
        raise OSError(28, "No space left on device")

    settled.apply(capture_spec(hook="blocks.1.hook_resid_post"), "more", "Capture")
    settled.settle()
    monkeypatch.setattr("loopscope.state.artifacts.carrying.shutil.copyfile", full)
    assert reason(taken, settled, target) == "SnapshotNotWritable"
    assert files(target)[Path(SNAPSHOT)] == before


def test_the_commands_say_what_they_copied(settled, tmp_path, loopscope):
    target, one = tmp_path / "backup", tmp_path / "one.snapshot"
    code, said, _ = loopscope("backup", target)
    assert code == 0 and "copied 6 artifacts" in said
    assert loopscope("backup", "--records-only", target)[0] == 2
    assert loopscope("backup", "--records-only", one)[0] == 0 and one.is_file()
    assert loopscope("backup", one)[0] == 2, "a file is no folder"
    settled.state.database.close()
    shutil.rmtree(settled.state.path)
    code, said, _ = loopscope("restore", target)
    assert code == 0 and "brought 6 artifacts" in said
    code, said, _ = loopscope("restore", target)
    assert code == 0 and "nothing to do" in said and "6 were there" in said
