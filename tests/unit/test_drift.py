"""What people and disks do behind the controller's back: it heals by itself, or is told clearly."""

import json
import shutil
import sqlite3

import pytest

from loopscope.specs.canonical import digest as digest_of
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.db import jobs
from loopscope.state.failures import TerminalFailure
from tests.simulated import Simulation, experiment_spec


def manifest_of(simulation, name):
    return simulation.artifact_folder(name) / MANIFEST


def rewrite(path, change):
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def contents(simulation):
    """Return what every object rests on."""
    return {r.key.name: r.status.artifact for r in simulation.objects()}


# -- manifests -------------------------------------------------------------------------------

FIELDS = [
    "stage", "digest", "codeRevision", "metrics", "createdAt", "files", "inputs", "seconds",
    "contentDigest", "manifestDigest",
]  # fmt: skip


def other(value):
    return {**value, "n": 99} if isinstance(value, dict) else f"{value}0"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("removed", [True, False], ids=["removed", "edited"])
def test_an_edit_of_any_field_of_a_manifest_is_noticed_and_healed(settled, field, removed):
    def edit(manifest):
        manifest.pop(field) if removed else manifest.update({field: other(manifest[field])})

    before = contents(settled)
    rewrite(manifest_of(settled, "france-capture"), edit)
    assert settled.resync() == ["capture"]
    assert contents(settled) == before
    assert "ArtifactDamaged" in settled.event_reasons("france-capture")


def test_a_field_added_to_a_manifest_is_noticed_too(settled):
    rewrite(manifest_of(settled, "france-mapping"), lambda manifest: manifest.update(note="mine"))
    assert settled.resync() == ["mapping"]


def test_all_fields_of_a_manifest_were_tried(settled):
    assert set(json.loads(manifest_of(settled, "france-capture").read_text())) == set(FIELDS)


def test_numbers_that_were_edited_and_sealed_again_are_not_believed(settled):
    before = indexed(settled)
    path = manifest_of(settled, "france-steering")

    def forge(manifest):
        manifest["metrics"]["estimate"] = 9.0
        manifest["manifestDigest"] = digest_of(
            {k: v for k, v in manifest.items() if k != "manifestDigest"}
        )

    rewrite(path, forge)
    assert settled.resync() == ["steering"]
    assert "ArtifactDamaged" in settled.event_reasons("france-steering")
    assert [a.metrics for a in indexed(settled)] == [a.metrics for a in before]


def indexed(simulation):
    with simulation.state.database.read() as connection:
        return artifact_index.listed(connection)


# -- links and foreign files -----------------------------------------------------------------


def replace_by_link(folder, target):
    folder.rename(target)
    folder.symlink_to(target)


def replace_by_dangling_link(folder, target):
    shutil.rmtree(folder)
    folder.symlink_to(target)


def replace_by_file(folder, _target):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def link_a_payload_file(folder, target):
    file = next(path for path in sorted(folder.iterdir()) if path.name != MANIFEST)
    file.rename(target)
    file.symlink_to(target)


def link_the_manifest(folder, target):
    (folder / MANIFEST).rename(target)
    (folder / MANIFEST).symlink_to(target)


@pytest.mark.parametrize(
    "harm",
    [
        replace_by_link,
        replace_by_dangling_link,
        replace_by_file,
        link_a_payload_file,
        link_the_manifest,
    ],
)
def test_a_link_in_an_artifacts_place_is_not_followed_but_set_aside(settled, harm, tmp_path):
    before = contents(settled)
    folder = settled.artifact_folder("france-mapping")
    harm(folder, tmp_path / "elsewhere")
    assert settled.resync() == ["mapping"]
    assert contents(settled) == before
    assert folder.is_dir() and not folder.is_symlink()
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_a_foreign_file_in_an_artifact_does_no_harm_and_is_left_alone(settled):
    foreign = settled.artifact_folder("france-mapping") / "notes.txt"
    foreign.write_text("my notes")
    before = settled.rows()
    assert settled.resync() == []
    assert settled.rows() == before and foreign.read_text() == "my notes"


def test_what_cannot_be_looked_at_now_is_not_taken_for_damage(settled, monkeypatch):
    folder = settled.artifact_folder("france-capture")

    def no_handle_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("loopscope.state.artifacts.folder_store.sha256_in_slices", no_handle_left)
    settled.clock.advance(settled.settings.resync_seconds + 1)
    settled.step()
    monkeypatch.undo()
    assert folder.is_dir() and not (settled.state.artifacts.root / ".quarantine").exists()
    assert settled.resync() == []


# -- the database ----------------------------------------------------------------------------


def copy_of(database, path):
    """Return a whole copy of a database that is in use."""
    with sqlite3.connect(database) as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


def put_back(copy, simulation):
    """Restore an older database as ``sqlite3 state.db '.restore copy'`` does: while in use."""
    with (
        sqlite3.connect(copy) as source,
        sqlite3.connect(simulation.state.database.dialect.path, timeout=60) as target,
    ):
        source.backup(target)


MOMENTS = {
    "before anything was looked at": lambda s: None,
    "while the first job ran": lambda s: s.step_until_running(),
    "after one stage": lambda s: (s.step_until_running(), s.workers.complete()),
}


def an_hour_later(path, moment):
    """Return a settled experiment and a copy of its database from an hour ago."""
    simulation = Simulation(path / "state")
    simulation.apply()
    MOMENTS[moment](simulation)
    copy = copy_of(simulation.state.database.dialect.path, path / "an-hour-ago.db")
    simulation.settle()
    simulation.clock.advance(3600)
    return simulation, copy


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_database_from_an_hour_ago_finds_the_newer_artifacts_without_a_run(tmp_path, moment):
    simulation, copy = an_hour_later(tmp_path, moment)
    before = contents(simulation)
    simulation.state.database.close()
    copy.rename(simulation.state.database.dialect.path)
    again = Simulation(tmp_path / "state")
    again.clock.time = simulation.clock.time
    assert again.settle() == []
    assert contents(again) == before
    assert all(job.state == "succeeded" for job in again.jobs())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_running_controller_notices_that_an_older_database_was_put_back(tmp_path, moment):
    simulation, copy = an_hour_later(tmp_path, moment)
    simulation.resync()
    before = contents(simulation)
    put_back(copy, simulation)
    for _ in range(2):
        simulation.step()  # no time passes, no resync is due: the version gives it away
    assert contents(simulation) == before
    assert simulation.resync() == [] and contents(simulation) == before


def test_an_older_database_with_another_spec_is_brought_to_its_own_spec(settled, tmp_path):
    copy = copy_of(settled.state.database.dialect.path, tmp_path / "old.db")
    old = contents(settled)
    settled.apply(experiment_spec(maxTokens=99))
    settled.settle()
    assert contents(settled) != old
    put_back(copy, settled)
    assert settled.settle() == [] and contents(settled) == old


def test_an_artifact_that_was_made_again_after_the_backup_is_taken_over(settled, tmp_path):
    copy = copy_of(settled.state.database.dialect.path, tmp_path / "old.db")
    shutil.rmtree(settled.artifact_folder("france-fine"))
    assert settled.resync() == ["decomposition"]
    put_back(copy, settled)
    assert settled.resync() == []
    assert all(record.ready for record in settled.objects())
    for record in indexed(settled):
        settled.state.artifacts.verify(record)


def test_a_database_that_is_deleted_while_stopped_is_made_again_without_a_run(settled):
    before = contents(settled)
    settled.state.database.close()
    settled.state.database.dialect.path.unlink()
    again = Simulation(settled.state.path)
    again.apply()
    assert again.settle() == []
    assert contents(again) == before


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_database_file_that_is_deleted_while_in_use_stops_all_writing(settled, suffix):
    path = settled.state.database.dialect.path
    settled.apply(experiment_spec(maxTokens=99))
    path.with_name(path.name + suffix).unlink()
    with pytest.raises(TerminalFailure) as refused:
        settled.step()
    assert refused.value.reason == "DatabaseReplaced"
    assert "loopscope rebuild" in refused.value.message


def test_a_database_that_is_replaced_while_in_use_is_not_written_by_the_old_process(
    settled, tmp_path
):
    path = settled.state.database.dialect.path
    copy = copy_of(path, tmp_path / "copy.db")
    settled.apply(experiment_spec(maxTokens=99))
    copy.replace(path)
    before = path.read_bytes()
    with pytest.raises(TerminalFailure):
        settled.step()
    assert path.read_bytes() == before


def test_without_its_wal_file_a_stopped_database_is_only_older(tmp_path):
    """As after a kill (nothing was closed) and a hand that removes ``state.db-wal``."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.settle()
    before = contents(simulation)
    crashed = tmp_path / "crashed"
    shutil.copytree(simulation.state.path, crashed)
    assert (crashed / "state.db-wal").stat().st_size > 0
    for suffix in ("-wal", "-shm"):
        (crashed / f"state.db{suffix}").unlink()
    again = Simulation(crashed)
    again.apply()
    assert again.settle() == [] and contents(again) == before


# -- the folders -----------------------------------------------------------------------------


def test_a_model_folder_that_is_unmounted_and_mounted_again_costs_no_job(settled):
    before = contents(settled)
    gone = {"facts": None, "reason": "InputRefused", "message": "no such folder", "terminal": True}
    settled.inputs.answers["tiny"] = gone
    assert settled.resync() == []
    assert settled.get("france-capture").stalled
    del settled.inputs.answers["tiny"]
    assert settled.resync() == []
    assert contents(settled) == before and all(record.ready for record in settled.objects())


def test_a_state_folder_may_be_moved_while_it_is_stopped(settled, tmp_path):
    before, rows = contents(settled), settled.rows()
    settled.state.database.close()
    moved = Simulation(settled.state.path.rename(tmp_path / "another place"))
    moved.clock.time = settled.clock.time
    assert moved.resync() == []
    assert contents(moved) == before and moved.rows() == rows


def test_no_row_and_no_manifest_names_the_state_folder(settled):
    place = str(settled.state.path)
    assert place not in repr(settled.rows())
    for manifest in settled.state.artifacts.root.rglob(MANIFEST):
        assert place not in manifest.read_text()


def test_a_state_folder_that_is_moved_under_a_controller_ends_it_with_a_clear_word(
    settled, tmp_path
):
    settled.step()
    settled.state.path.rename(tmp_path / "another place")
    with pytest.raises(TerminalFailure, match="moved or replaced while it was in use"):
        settled.step()


def test_a_worker_of_before_the_restore_can_change_nothing(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    copy = copy_of(simulation.state.database.dialect.path, tmp_path / "old.db")
    simulation.step_until_running()
    ((_, (job_id, token)),) = simulation.workers.assigned.items()
    put_back(copy, simulation)
    with pytest.raises(jobs.Fenced), simulation.state.database.write() as connection:
        jobs.succeed(connection, job_id, token, now=simulation.clock.now())
