"""``fsck``: what is wrong is found, reported and repaired; looking changes nothing."""

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from filelock import FileLock

from loopscope.controller.maintenance.fsck import examine, repair_findings
from loopscope.controller.runtime import AnotherController
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.consistency import ADVICE
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.db import jobs, objects
from tests.simulated import Simulation, experiment_spec, settled_experiment

NOW = 2_000_000.0


@pytest.fixture
def settled(tmp_path):
    """A settled state folder that nobody has open."""
    simulation = settled_experiment(tmp_path / "state")
    simulation.folders = {
        name: simulation.artifact_folder(f"france-{name}")
        for name in ("capture", "coarse", "fine", "mapping", "steering")
    }
    simulation.state.database.close()
    return simulation


def problems(seen):
    return sorted(finding.problem for finding in seen.findings)


def everything_below(path):
    return {
        p.relative_to(path): (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in sorted(path.rglob("*"))
        if not p.name.endswith("-shm")
    }


def write(simulation, change):
    with simulation.state.database.write() as connection:
        change(connection)
    simulation.state.database.close()


def flip_a_bit(simulation):
    path = simulation.folders["fine"] / "tables/activations.safetensors"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(bytes(data))


def edit_the_manifest(simulation):
    path = simulation.folders["steering"] / MANIFEST
    path.write_text(path.read_text().replace("Supported", "Refuted"))


def lose_a_folder(simulation):
    shutil.rmtree(simulation.folders["mapping"])


def put_a_link_there(simulation):
    folder = simulation.folders["mapping"]
    folder.rename(simulation.state.path / "elsewhere")
    folder.symlink_to(simulation.state.path / "elsewhere")


def lose_a_row(simulation):
    digest = simulation.folders["mapping"].name
    write(simulation, lambda connection: artifact_index.forget(connection, digest))


def lose_row_and_folder(simulation):
    lose_a_row(simulation)
    lose_a_folder(simulation)


def lose_a_row_of_a_corrupt_artifact(simulation):
    digest = simulation.folders["fine"].name
    write(simulation, lambda connection: artifact_index.forget(connection, digest))
    flip_a_bit(simulation)


def put_a_file_into_an_artifact(simulation):
    (simulation.folders["capture"] / "notes.txt").write_text("mine")


def put_a_folder_beside_the_stages(simulation):
    (simulation.state.artifacts.root / "backup" / "deep").mkdir(parents=True)
    (simulation.state.artifacts.root / "capture" / "old").write_text("x")


def leave_shards(simulation):
    folder = simulation.state.artifacts.work_folder("a" * 64)
    folder.mkdir(parents=True)
    (folder / "shard-0").write_bytes(b"x" * 100)


def leave_staging(simulation):
    (simulation.state.artifacts.staging_folder("a" * 64, 7) / "x").write_bytes(b"x" * 100)


def kill_a_worker(simulation):
    shutil.rmtree(simulation.folders["steering"])
    simulation.clock.advance(60)
    simulation.step_until_running()
    simulation.state.database.close()


HARMS = {
    flip_a_bit: ["ArtifactCorrupt"],
    edit_the_manifest: ["ArtifactCorrupt"],
    lose_a_folder: ["ArtifactMissing"],
    put_a_link_there: ["ArtifactCorrupt"],
    lose_a_row: ["ArtifactUnindexed"],
    lose_row_and_folder: ["ObjectWithoutArtifact"],
    lose_a_row_of_a_corrupt_artifact: ["ArtifactCorrupt"],
    put_a_file_into_an_artifact: ["ForeignFile"],
    put_a_folder_beside_the_stages: ["ForeignFile", "ForeignFile"],
    leave_shards: ["LeftoverShards"],
    leave_staging: ["LeftoverStaging"],
    kill_a_worker: ["JobWithoutWorker"],
}
each_harm = pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)


def test_a_settled_folder_has_no_findings_and_looking_changes_nothing(settled):
    before = everything_below(settled.state.path)
    seen = examine(settled.state.path)
    assert seen.findings == [] and len(seen.whole) == 6
    assert everything_below(settled.state.path) == before


@each_harm
def test_each_harm_is_found_under_its_name_and_looking_changes_nothing(settled, harm):
    harm(settled)
    before = everything_below(settled.state.path)
    assert problems(examine(settled.state.path)) == HARMS[harm]
    assert everything_below(settled.state.path) == before


@each_harm
def test_each_harm_is_mended_or_healed_by_the_next_run_and_nothing_is_lost(settled, harm):
    harm(settled)
    repair_findings(settled.state.path, NOW)
    left = problems(examine(settled.state.path))
    assert set(left) <= {"ObjectWithoutArtifact"}
    again = Simulation(settled.state.path)
    again.clock.time = NOW
    ran = again.settle()
    assert len(ran) == (1 if left or harm is kill_a_worker else 0)
    again.state.database.close()
    seen = examine(settled.state.path)
    assert seen.findings == [] and len(seen.whole) == 6


def test_mending_twice_finds_nothing_the_second_time(settled):
    for harm in (flip_a_bit, lose_a_row, put_a_file_into_an_artifact, leave_shards):
        harm(settled)
    assert len(repair_findings(settled.state.path, NOW).repaired) == 4
    assert repair_findings(settled.state.path, NOW).repaired == []


def test_what_is_set_aside_is_kept_with_its_bytes(settled):
    flip_a_bit(settled)
    put_a_file_into_an_artifact(settled)
    after = repair_findings(settled.state.path, NOW).after
    aside = settled.state.artifacts.root / ".quarantine"
    assert (aside / "foreign" / "notes.txt-0").read_text() == "mine"
    assert len(list((aside / "decomposition").iterdir())) == 1
    assert after.quarantined == 2 and after.quarantined_bytes > 4


def test_a_controller_at_work_is_not_disturbed_by_a_repair(settled):
    flip_a_bit(settled)
    before = everything_below(settled.state.path)
    with FileLock(settled.state.leader_lock), pytest.raises(AnotherController):
        repair_findings(settled.state.path, NOW)
    settled.state.leader_lock.unlink(missing_ok=True)
    assert everything_below(settled.state.path) == before


def test_numbers_that_were_edited_and_sealed_anew_are_not_those_of_the_index(settled):
    path = settled.folders["steering"] / MANIFEST
    sealed = json.loads(path.read_text().replace("Supported", "Refuted"))
    rest = {name: value for name, value in sealed.items() if name != "manifestDigest"}
    path.write_text(json.dumps({**rest, "manifestDigest": digest(rest)}))
    (finding,) = examine(settled.state.path).findings
    assert finding.problem == "ArtifactCorrupt"
    assert finding.what == "its numbers are not those that were recorded"


def test_shards_that_a_job_may_go_on_from_are_not_leftovers(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    (job,) = simulation.jobs()
    simulation.state.artifacts.work_folder(job.digest).mkdir(parents=True)
    simulation.state.artifacts.staging_folder(job.digest, job.token)
    assert problems(examine(tmp_path / "state")) == ["JobWithoutWorker"]
    simulation.delete()  # nobody wants it any more, and the job still runs
    assert problems(examine(tmp_path / "state")) == ["JobWithoutWorker"]


def test_an_artifact_that_was_made_again_after_the_backup_is_taken_over(settled, tmp_path):
    copy = tmp_path / "old.db"
    shutil.copy(settled.state.database.dialect.path, copy)
    shutil.rmtree(settled.folders["mapping"])
    assert settled.resync() == ["mapping"]
    settled.state.database.close()
    copy.replace(settled.state.database.dialect.path)
    assert problems(examine(settled.state.path)) == ["ArtifactReplaced"]
    assert repair_findings(settled.state.path, NOW).after.findings == []


def test_a_look_during_work_reads_what_is_committed_so_far(settled):
    settled.apply(experiment_spec(maxTokens=99))  # open, with a -wal beside it
    assert Path(f"{settled.state.database.dialect.path}-wal").stat().st_size > 0
    before = everything_below(settled.state.path)
    assert examine(settled.state.path).findings == []
    assert everything_below(settled.state.path) == before


def test_a_foreign_file_of_any_name_is_told_in_one_printable_line(settled, loopscope):
    folder = settled.folders["capture"]
    for name in (b"two\nlines", b"\x1b[31mred", b"not utf-8 \xff"):
        (folder / os.fsdecode(name)).write_text("x")
    code, out, _ = loopscope("fsck")
    lines = [line for line in out.splitlines() if line.startswith("ForeignFile")]
    assert code == 1 and len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert repair_findings(settled.state.path, NOW).after.findings == []


def test_a_pipe_in_an_artifact_is_no_file_and_nobody_waits_for_it(settled):
    file = settled.folders["mapping"] / "pairs.json"
    file.unlink()
    os.mkfifo(file)
    assert problems(examine(settled.state.path)) == ["ArtifactCorrupt"]
    assert settled.resync() == ["mapping"]


def test_a_look_after_a_crash_reads_the_wal_and_leaves_it_as_it_is(settled, tmp_path):
    settled.apply(experiment_spec(maxTokens=99))
    crashed = tmp_path / "crashed"
    shutil.copytree(settled.state.path, crashed)  # as a kill leaves it: nobody closed anything
    before = everything_below(crashed)
    assert examine(crashed).findings == []
    assert everything_below(crashed) == before


# -- the database ----------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:9000])


def overwrite(path):
    path.write_bytes(b"not a database, but long enough to be one" * 1000)


def scribble(path):
    """Damage a page that only an integrity check looks at."""
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 + 8 : page * 4096 + 64] = b"\xff" * 56
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"")


def replace_by_another(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("create table recipes (name)")


DAMAGES = [cut, overwrite, scribble, empty, replace_by_another, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("repair", [False, True], ids=["looking", "repairing"])
def test_a_database_that_cannot_be_read_is_told_and_left_alone(settled, damage, repair):
    damage(settled.state.database.dialect.path)
    before = everything_below(settled.state.path)
    path = settled.state.path
    seen = repair_findings(path, NOW).after if repair else examine(path)
    expected = "DatabaseMissing" if damage is Path.unlink else "DatabaseDamaged"
    assert problems(seen) == [expected] and len(seen.whole) == 6
    if damage is overwrite:
        assert seen.findings[0].what == "SQLite cannot read it"
    settled.state.leader_lock.unlink(missing_ok=True)
    assert everything_below(path) == before


def test_an_older_schema_is_told_and_not_migrated_by_looking(settled):
    with sqlite3.connect(settled.state.database.dialect.path) as connection:
        connection.execute("update alembic_version set version_num = '0000'")
    connection.close()
    before = everything_below(settled.state.path)
    assert problems(examine(settled.state.path)) == ["SchemaOutdated"]
    assert everything_below(settled.state.path) == before


def test_a_lease_that_is_taken_back_counts_as_a_loss_and_is_told(settled):
    kill_a_worker(settled)
    repair_findings(settled.state.path, NOW)
    with settled.state.database.read() as connection:
        (job,) = jobs.listed(connection)
        assert (job.state, job.losses) == ("pending", 1)
        key = Key("Steering", "default", "france-steering")
        assert objects.get(connection, key) is not None
    (lost,) = [row for row in settled.rows()["events"] if row[5] == "WorkerLost"]
    assert "lost its worker; it is queued again" in str(lost)


# -- words -----------------------------------------------------------------------------------


def test_every_problem_is_documented_and_every_documented_problem_exists():
    page = Path(__file__).parents[2] / "docs" / "failures.md"
    rows = [line.split("|") for line in page.read_text().splitlines() if line.startswith("| `")]
    found = [reason for _, reason, when, *_ in rows if "fsck" in when]
    assert {name for reason in found for name in re.findall(r"`(\w+)`", reason)} == set(ADVICE)


def test_the_command_tells_each_finding_with_advice_and_its_exit_code(settled, loopscope):
    code, out, err = loopscope("fsck")
    assert (code, err) == (0, "") and out.endswith("no findings\n")
    flip_a_bit(settled)
    lose_a_folder(settled)
    code, out, _ = loopscope("fsck")
    assert code == 1 and "2 findings, 2 can be repaired: loopscope fsck --repair" in out
    (line,) = [line for line in out.splitlines() if line.startswith("ArtifactCorrupt")]
    assert "activations.safetensors: sha256 differs" in line and "--repair sets it aside" in line
    code, out, _ = loopscope("fsck", "--repair")
    assert code == 1 and "repaired ArtifactCorrupt" in out and "set aside" in out
    assert out.count("ObjectWithoutArtifact") == 2


def test_the_command_in_json(settled, loopscope):
    flip_a_bit(settled)
    code, out, _ = loopscope("fsck", "-o", "json")
    told = json.loads(out)
    assert code == 1 and told["artifacts"] == 5 and told["repaired"] == []
    (finding,) = told["findings"]
    assert finding["problem"] == "ArtifactCorrupt" and finding["repairable"] is True
    code, out, _ = loopscope("fsck", "--repair", "-o", "json")
    assert json.loads(out)["repaired"] == [finding]
    assert json.loads(out)["quarantined"] == 1


def test_the_command_refuses_what_it_cannot_do(settled, loopscope):
    assert loopscope("fsck", "-o", "xml")[0] == 2
    with FileLock(settled.state.leader_lock):
        code, _, err = loopscope("fsck", "--repair")
    assert code == 1 and "another controller" in err and "stop it before a repair" in err
    shutil.rmtree(settled.state.path)
    assert loopscope("fsck")[0] == 2
    assert not settled.state.path.exists()


def test_a_broken_promise_of_the_rows_is_found(settled):
    statement = "update jobs set finished_at = null where stage = 'mapping'"
    write(settled, lambda connection: connection.exec_driver_sql(statement))
    (found,) = [f for f in examine(settled.state.path).findings if f.problem == "InvariantBroken"]
    assert found.subject.startswith("mapping job ") and found.what.startswith("I12: succeeded")
    assert found.repair is None and "report it" in ADVICE[found.problem]
