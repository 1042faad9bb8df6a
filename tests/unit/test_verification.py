"""Hashing in turns: what looked damaged once is looked at again before anything is moved."""

import pytest

from loopscope.controller.reconcile.verification import Verifier
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import Corrupt
from tests.fault_seams import Fault, failing
from tests.simulated import Simulation, settled_experiment

NAME = "residual.safetensors"


@pytest.fixture
def world(tmp_path):
    return settled_experiment(tmp_path / "state")


def aside(simulation):
    root = simulation.state.artifacts.root / ".quarantine"
    return [path for path in root.rglob("*") if path.name == "manifest.json"]


def known(simulation, digest):
    with simulation.state.database.read() as connection:
        return artifact_index.get(connection, digest)


def looks_damaged(monkeypatch, digest, times):
    """Let the first looks at an artifact find damage, as a bad cable or a half copy would."""
    real, left = FolderStore.verifying, [times]

    def verifying(self, record):
        if record.digest == digest and left[0] > 0:
            left[0] -= 1
            raise Corrupt("sha256 differs")
        yield from real(self, record)

    monkeypatch.setattr(FolderStore, "verifying", verifying)
    return left


def test_what_looks_damaged_once_and_whole_the_next_moment_stays(world, monkeypatch):
    folder = world.artifact_folder("france-capture")
    before = {record.key: record for record in world.objects()}
    left = looks_damaged(monkeypatch, folder.name, 1)
    assert world.resync() == []
    assert left == [0], "the first look found damage"
    assert known(world, folder.name) is not None and aside(world) == []
    assert {record.key: record for record in world.objects()} == before
    assert "ArtifactDamaged" not in world.event_reasons("france-capture")


def test_what_is_damaged_at_both_looks_is_set_aside_and_made_again(world):
    folder = world.artifact_folder("france-capture")
    data = bytearray((folder / NAME).read_bytes())
    data[0] ^= 1
    (folder / NAME).write_bytes(data)
    assert world.resync() == ["capture"]
    assert len(aside(world)) == 1
    assert "ArtifactDamaged" in world.event_reasons("france-capture")
    assert all(record.ready for record in world.objects())


def test_what_was_made_again_between_the_looks_stays(world, monkeypatch):
    """As by a worker that publishes while the controller hashes."""
    folder = world.artifact_folder("france-capture")
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(b"x" * len(whole))
    real, healed = FolderStore.verifying, []

    def verifying(self, record):
        try:
            yield from real(self, record)
        except Corrupt:
            (folder / NAME).write_bytes(whole)
            healed.append(record.digest)
            raise

    monkeypatch.setattr(FolderStore, "verifying", verifying)
    assert world.resync() == []
    assert healed == [folder.name], "the first look found damage"
    assert known(world, folder.name) is not None and aside(world) == []
    assert world.get("france").ready


def test_damage_is_remembered_when_it_cannot_be_set_aside_now(world):
    """A full disk at the wrong moment: the next step does it."""
    folder = world.artifact_folder("france-capture")
    whole = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(b"x" * len(whole))
    world.clock.advance(world.settings.resync_seconds + 1)
    with failing("rename", Fault(1, "ENOSPC"), folder) as fault:
        world.step()
    assert fault.fired and folder.exists() and world.controller.trouble is not None
    world.workers.complete()
    assert "capture" in world.settle()
    assert len(aside(world)) == 1 and world.get("france").ready


def test_every_artifact_has_its_turn_however_small_the_budget(tmp_path):
    settled_experiment(tmp_path / "state").state.database.close()
    simulation = Simulation(tmp_path / "state", verify_bytes_per_resync=1)
    simulation.clock.time += 5000
    assert [simulation.resync() for _ in range(6)] == [[]] * 6, "everything had a turn"
    folder = simulation.artifact_folder("france-steering")
    (folder / "scores.json").write_bytes(b"x" * (folder / "scores.json").stat().st_size)
    ran = [stage for _ in range(30) for stage in simulation.resync()]
    assert ran == ["steering"] and len(aside(simulation)) == 1


def test_a_second_look_that_cannot_be_had_now_is_not_under_way(world, monkeypatch):
    folder = world.artifact_folder("france-capture")
    left = looks_damaged(monkeypatch, folder.name, 1)
    verifier = Verifier(world.state.artifacts, world.clock, 1 << 40, 1e9)
    one, real = [], FolderStore.verifying

    def unreadable(self, record):
        if record.digest == folder.name and left == [0] and not one:
            one.append(record)
            raise OSError("no handle is left")
        yield from real(self, record)

    monkeypatch.setattr(FolderStore, "verifying", unreadable)
    with pytest.raises(OSError, match="no handle"):
        verifier.verify_some(world.state.database)
    assert not verifier.suspicious
