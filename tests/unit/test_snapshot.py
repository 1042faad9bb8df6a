"""A snapshot holds one moment of a state, comes back whole, and replaces nothing that is newer."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from loopscope.controller.maintenance.snapshot import restore, save
from loopscope.controller.runtime import AnotherController, leadership
from loopscope.state.artifacts.consistency import compare
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import open_state
from tests.simulated import Simulation, capture_spec


@pytest.fixture
def half_done(tmp_path):
    """An experiment whose first stage is done; its artifacts lie in a folder that others see."""
    simulation = Simulation(linked(tmp_path, "first"))
    simulation.apply()
    simulation.step_until_running()
    assert simulation.workers.complete() == ["capture"]
    simulation.step()
    return simulation


def linked(folder, name):
    """Return a new state folder whose artifacts are a link to a shared folder."""
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    (folder / name).mkdir()
    (folder / name / "artifacts").symlink_to(shared)
    return folder / name


def saved(simulation, file, force=False, lineage="a name", now=5.0):
    return save(simulation.state, file, now=now, lineage=lineage, force=force)


def everything(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "-shm" not in path.name and "-wal" not in path.name
    }


def reason(call, *given, **options):
    with pytest.raises(TerminalFailure) as told:
        call(*given, **options)
    return told.value.reason


def test_work_goes_on_elsewhere_from_a_snapshot_and_shared_artifacts(half_done, tmp_path):
    file = tmp_path / "state.snapshot"
    done = saved(half_done, file)
    assert done.objects == len(half_done.objects()) and file.stat().st_mode & 0o077 == 0
    before = half_done.rows()
    second = linked(tmp_path, "second")
    found = restore(second, file, force=False)
    assert found.is_new and found.set_aside is None and found.snapshot == done
    elsewhere = Simulation(second)
    assert elsewhere.rows() == before
    elsewhere.clock.time = half_done.clock.time
    ran = elsewhere.settle()
    assert "capture" not in ran and len(ran) == 5 and elsewhere.get("france").ready
    assert (second / "artifacts").is_symlink() and compare(elsewhere.state).findings == []


def test_it_is_the_users_alone_from_its_first_byte(half_done, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # as if it died before it came to that
    file = tmp_path / "state.snapshot"
    saved(half_done, file)
    assert file.stat().st_mode & 0o077 == 0


def test_two_first_snapshots_at_once_agree_on_the_name(half_done, tmp_path, monkeypatch):
    database = type(half_done.state.database)
    write = database.write

    def behind_another(self):
        monkeypatch.setattr(database, "write", write)
        saved(half_done, tmp_path / "one.snapshot", lineage="the first's")
        return write(self)

    monkeypatch.setattr(database, "write", behind_another)
    done = saved(half_done, tmp_path / "two.snapshot", lineage="the second's")
    assert done.lineage == "the first's"
    saved(half_done, tmp_path / "one.snapshot")


def test_it_is_taken_while_another_writes_and_holds_what_was_committed(half_done, tmp_path):
    saved(half_done, tmp_path / "earlier")
    before = half_done.rows()
    writer = open_state(half_done.state.path)
    with writer.database.write() as connection:
        objects.remove(connection, half_done.get("france").key, now=9.0)
        saved(half_done, tmp_path / "meanwhile")
    restore(tmp_path / "second", tmp_path / "meanwhile", force=False)
    assert Simulation(tmp_path / "second").rows() == before
    left = {path.name for path in half_done.state.path.iterdir() if ".snapshot-" in path.name}
    assert not left, "nothing is left beside the database"


def test_a_damaged_snapshot_changes_nothing(half_done, tmp_path):
    file = tmp_path / "state.snapshot"
    saved(half_done, file)
    whole, place = file.read_bytes(), half_done.state.path
    head, _, body = whole.partition(b"\n")

    def told(**changes):
        return json.dumps({**json.loads(head), **changes}).encode() + b"\n"

    before = everything(place)
    for bad, why in [
        (whole[:-1], "SnapshotDamaged"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "SnapshotDamaged"),
        (whole + b"x", "SnapshotDamaged"),
        (body, "SnapshotDamaged"),
        (b"", "SnapshotDamaged"),
        (b"[" * 5000, "SnapshotDamaged"),
        (b"{}\n" + body, "SnapshotDamaged"),
        (told(schema="9999") + body, "NewerDatabase"),
        (told(version=10**9) + body, "SnapshotDamaged"),
        (told(version="9") + body, "SnapshotDamaged"),
        (told(bytes=4, sha256=sha256(b"rows").hexdigest()) + b"rows", "DatabaseDamaged"),
    ]:
        file.write_bytes(bad)
        assert reason(restore, place, file, force=True) == why
        assert everything(place) == before
    file.write_bytes(b"")
    for bad in (tmp_path / "none", file):
        assert reason(restore, tmp_path / "new", bad, force=False) == "SnapshotDamaged"
        assert not (tmp_path / "new").exists(), "nor is a folder made"


def test_a_newer_or_another_state_is_not_lost_unasked(half_done, tmp_path):
    file = tmp_path / "state.snapshot"
    saved(half_done, file)
    assert not restore(half_done.state.path, file, force=False).is_new, "the same: nothing to do"
    half_done.apply(capture_spec(), "later", "Capture")
    assert reason(restore, half_done.state.path, file, force=False) == "StateNewer"
    other = Simulation(tmp_path / "other")
    other.apply(capture_spec(), "own", "Capture")
    assert reason(restore, other.state.path, file, force=False) == "StateNewer"
    other.state.database.close()
    done = restore(other.state.path, file, force=True)
    assert done.is_new and done.set_aside is not None
    assert {record.key.name for record in Simulation(tmp_path / "other").objects()} >= {"france"}


def test_two_that_went_other_ways_to_the_same_version_do_not_replace_each_other(
    half_done, tmp_path
):
    file, other = tmp_path / "state.snapshot", tmp_path / "other.snapshot"
    saved(half_done, file)
    restore(tmp_path / "second", file, force=False)
    second = Simulation(tmp_path / "second")
    for simulation, name in ((half_done, "here"), (second, "there")):
        simulation.apply(capture_spec(), name, "Capture")
    assert saved(half_done, file).version == saved(second, other).version
    second.state.database.close()
    assert not restore(half_done.state.path, file, force=False).is_new
    assert reason(restore, half_done.state.path, other, force=False) == "StateNewer"
    assert reason(saved, half_done, other) == "SnapshotNewer"
    assert half_done.get("here", "Capture")
    assert restore(half_done.state.path, other, force=True).is_new


def test_an_older_state_and_an_empty_one_give_way(half_done, tmp_path):
    file = tmp_path / "state.snapshot"
    saved(half_done, file)
    restore(tmp_path / "second", file, force=False)
    half_done.apply(capture_spec(), "later", "Capture")
    saved(half_done, file)
    open_state(tmp_path / "empty").database.close()
    for place in ("second", "empty"):
        assert restore(tmp_path / place, file, force=False).is_new
        assert Simulation(tmp_path / place).get("later", "Capture")


def test_a_newer_snapshot_or_what_is_none_is_not_replaced_unasked(half_done, tmp_path):
    file, first = tmp_path / "state.snapshot", tmp_path / "first.snapshot"
    saved(half_done, first)
    half_done.apply(capture_spec(), "later", "Capture")
    newer = saved(half_done, file)
    assert saved(half_done, file).version == newer.version, "twice is as good as once"
    restore(tmp_path / "second", first, force=False)
    older = Simulation(tmp_path / "second")
    stranger = Simulation(tmp_path / "third")
    stranger.apply(capture_spec(), "own", "Capture")
    before = file.read_bytes()
    assert reason(saved, older, file) == "SnapshotNewer"
    assert reason(saved, stranger, file, lineage="another name") == "SnapshotNewer"
    assert file.read_bytes() == before
    saved(older, file, force=True)
    assert file.read_bytes() != before
    file.write_text("a diary")
    assert reason(saved, older, file) == "SnapshotDamaged" and file.read_text() == "a diary"


def test_under_a_controller_nothing_is_restored(half_done, tmp_path):
    file = tmp_path / "state.snapshot"
    saved(half_done, file)
    with leadership(half_done.state), pytest.raises(AnotherController):
        restore(half_done.state.path, file, force=True)
