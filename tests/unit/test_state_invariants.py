"""Each invariant holds on a healthy folder, and each is broken once by hand and noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete, text, update

from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.specs.pipeline import SHARED, nodes_of
from loopscope.state import invariants
from loopscope.state.db import jobs, objects, tables
from tests import promises
from tests.history import History, payloads_are_those_of, pruned_only_its_own
from tests.simulated import Simulation, capture_spec, experiment_spec

CHILD = Key("Decomposition", "default", "france-fine")


@pytest.fixture
def running(tmp_path):
    simulation = Simulation(tmp_path / "running")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    return simulation


def broken(simulation, **asked) -> set[str]:
    return {item.invariant for item in promises.violations(simulation.state, **asked)}


def write(simulation, *statements):
    with simulation.state.database.write() as connection:
        for statement in statements:
            connection.execute(statement if not isinstance(statement, str) else text(statement))


def object_row(key=CHILD):
    o = tables.objects
    return update(o).where(o.c.kind == key.kind, o.c.name == key.name)


def test_a_healthy_folder_breaks_none(settled, running):
    digests = see(settled).artifacts.keys()
    stages = {see(settled).artifacts[digest].stage for digest in digests}
    asked = list(nodes_of(experiment_spec()))
    names = {node.name for node in asked}
    shared = {one.stage for one in SHARED if names.intersection(one.needed_by)}
    assert stages == {node.stage for node in asked} | shared
    started = len(settled.jobs())
    assert promises.violations(settled.state, hash_digests=digests, starts_per_minute=started) == []
    assert promises.violations(running.state, starts_per_minute=1) == []
    with settled.state.database.read() as connection:
        assert promises.every_object_is_settled(invariants.see(connection)) == []


def test_i1_an_unfinished_folder_is_not_settled(running):
    with running.state.database.read() as connection:
        found = promises.every_object_is_settled(invariants.see(connection))
    assert [item.invariant for item in found] == ["I1", "I1"]


def test_i2_a_row_that_was_written_shows(settled):
    with settled.state.database.read() as connection:
        before = promises.rows(connection)
    assert promises.no_row_was_written(before, before) == []
    write(settled, "update jobs set message = 'again' where id = 1")
    with settled.state.database.read() as connection:
        after = promises.rows(connection)
    assert [item.where for item in promises.no_row_was_written(before, after)] == ["jobs"]


def test_i3_two_active_jobs_of_one_digest(settled):
    write(
        settled,
        "drop index jobs_one_active_per_digest",
        "update jobs set state='pending', finished_at=null, digest='d' where id in (1, 2)",
    )
    assert broken(settled) == {"I3"}


def test_i4_a_ready_object_without_a_whole_artifact(settled):
    file = settled.artifact_folder("france-fine") / "tables/activations.safetensors"
    digest = settled.get("france-fine").status.artifact.digest
    whole = file.read_bytes()
    file.write_bytes(whole[::-1])
    assert broken(settled) == set()
    assert broken(settled, hash_digests={digest}) == {"I4"}
    file.write_bytes(whole[:-1])
    assert broken(settled) == {"I4"}
    file.write_bytes(whole)
    write(settled, delete(tables.artifacts).where(tables.artifacts.c.digest == digest))
    assert broken(settled) == {"I4"}


def test_i5_a_token_that_nobody_issued_or_two_share(settled):
    write(settled, "update jobs set token = 99 where id = 1")
    assert broken(settled) == {"I5"}
    write(settled, "update jobs set token = 2 where id = 1")
    assert broken(settled) == {"I5"}


def test_i5_a_write_under_an_old_token(running):
    (job,) = running.jobs()
    assert promises.write_was_entitled(job, job.token) == []
    for stale in (replace(job, token=job.token + 1), replace(job, state="pending"), None):
        assert [v.invariant for v in promises.write_was_entitled(stale, job.token)] == ["I5"]


def test_i15_an_artifact_of_another_code_revision_than_its_digest_names_shows(settled):
    digest = settled.get("france-capture").status.artifact.digest
    assert broken(settled, hash_digests=[digest]) == set()
    write(settled, f"update jobs set code_revision = 99 where digest = '{digest}'")
    assert broken(settled) == set(), "manifests are read of those that are asked about"
    assert broken(settled, hash_digests=[digest]) == {"I15"}
    write(settled, "update jobs set code_revision = null")
    assert broken(settled, hash_digests=[digest]) == set(), "an old database does not say"


def test_i6_an_observation_of_a_generation_that_is_not_there_yet(settled):
    write(settled, object_row().values(generation=0))
    assert broken(settled) == {"I6"}


def test_i6_one_condition_of_a_generation_that_is_not_there_yet(settled):
    status = settled.get("france-fine").status
    ahead = replace(status.conditions[0], observed_generation=9)
    seen = see(settled)
    (record,) = [each for each in seen.objects if each.key == CHILD]
    others = [each for each in seen.objects if each.key != CHILD]
    late = replace(record, status=replace(status, conditions=(*status.conditions, ahead)))
    (found,) = invariants.observed_generations_are_not_ahead(replace(seen, objects=[*others, late]))
    assert (found.invariant, found.what) == ("I6", "generation 1, observed 9")


def see(simulation):
    with simulation.state.database.read() as connection:
        return invariants.see(connection)


def test_i7_a_gap_in_the_log_and_a_change_without_a_line(settled):
    write(settled, "delete from changes where resource_version = 5")
    assert broken(settled) == {"I7"}


def test_i7_a_change_without_a_line(settled):
    write(settled, object_row().values(resource_version=1))
    assert broken(settled) == {"I7"}


def test_i7_an_object_that_vanished_without_a_line(settled):
    write(settled, delete(tables.objects).where(tables.objects.c.name == "france-steering"))
    assert broken(settled) == {"I7"}


def test_i8_a_deletion_that_waits_for_nothing(settled):
    write(settled, object_row().values(deletion_timestamp=1.0))
    assert broken(settled) == {"I8"}


def test_i11_starts_beyond_the_rate(settled):
    assert broken(settled, starts_per_minute=1) == {"I11"}


def test_i12_an_ended_job_with_a_lease_or_without_an_end(settled):
    write(settled, "update jobs set lease_expires_at = 1 where id = 1")
    assert broken(settled) == {"I12"}
    write(settled, "update jobs set lease_expires_at = null, finished_at = null where id = 1")
    assert broken(settled) == {"I12"}


def test_a_row_that_points_at_nothing(settled):
    write(settled, object_row().values(owner_uid="nobody"))
    assert broken(settled) == {"rows"}


# -- two looks ---------------------------------------------------------------------


@pytest.fixture
def look(settled):
    history = History()

    def look(lost=()):
        with settled.state.database.read() as connection:
            seen = invariants.see(connection)
        found = history.look(seen, settled.state.artifacts, lost)
        return {item.invariant for item in found}

    assert look() == set()
    return look


def test_ordinary_life_breaks_nothing_over_time(settled, look):
    settled.delete()
    settled.settle()
    assert look() == set()
    settled.apply()
    settled.settle()
    assert look() == set()


def test_i5_tokens_that_fall(settled, look):
    write(settled, "update counters set value = 1 where name = 'fencing_token'")
    assert look() == {"I5"}


def test_i6_generations_that_fall_or_miss_an_edit(settled, look):
    write(settled, object_row().values(generation=0, resource_version=1))
    assert "I6" in look()


def test_i7_a_version_that_falls_and_a_change_that_has_none(settled, look):
    write(settled, object_row().values(labels={"a": "b"}))
    assert look() == {"I7"}
    write(settled, "update counters set value = 1 where name = 'resource_version'")
    assert look() == {"I7"}


def test_i8_an_object_that_vanishes_with_its_finalizer(settled, look):
    write(settled, object_row().values(finalizers=["wait"]))
    look()
    with settled.state.database.write() as connection:
        connection.execute(delete(tables.objects).where(tables.objects.c.name == CHILD.name))
        objects._log(connection, "DELETED", CHILD)
    assert look() == {"I8"}


def test_i10_a_reachable_artifact_that_vanishes(settled, look):
    folder = settled.artifact_folder("france-fine")
    folder.rename(folder.with_name("elsewhere"))
    assert look(lost={folder.name}) == set()
    assert look() == {"I10"}
    folder.with_name("elsewhere").rename(folder)
    settled.state.artifacts.quarantine("decomposition", folder.name)
    assert look() == set()


def test_i10_a_geometry_that_vanishes_while_a_mapping_rests_on_it(settled, look):
    (geometry,) = (one for one in see(settled).artifacts.values() if one.stage == "geometry")
    folder = settled.state.artifacts.folder("geometry", geometry.digest)
    folder.rename(folder.with_name("elsewhere"))
    assert look(lost={geometry.digest}) == set()
    assert look() == {"I10"}


def test_i12_an_ended_job_that_lives_again(settled, look):
    write(settled, "update jobs set state = 'pending' where id = 1")
    assert look() == {"I12"}
    write(settled, "delete from jobs where id = 2")
    assert look() == {"I12"}


def test_i9_a_prune_beyond_the_folder(settled):
    before = settled.objects()
    settled.delete()
    after = settled.objects()
    assert [v.invariant for v in pruned_only_its_own(before, after, "/specs", set())] == ["I9"]
    (experiment,) = (record for record in before if record.owner is None)
    ours = replace(experiment, annotations={SOURCE_ANNOTATION: "/specs/france.yaml"})
    before = [ours if record is experiment else record for record in before]
    assert pruned_only_its_own(before, after, "/specs", set()) == []
    assert pruned_only_its_own(before, after, "/specs", {ours.key}) != []


def test_i13_other_bytes_than_without_faults():
    assert payloads_are_those_of({"a": "1"}, {"a": "1", "b": "2"}) == []
    assert [v.where for v in payloads_are_those_of({"a": "1", "b": "2"}, {"a": "2"})] == ["a", "b"]


def test_a_worker_under_an_old_token_is_refused(running):
    (job,) = running.jobs()
    with running.state.database.write() as connection, pytest.raises(jobs.Fenced):
        jobs.succeed(connection, job.id, job.token - 1, now=1.0)


def test_i5_a_running_job_that_was_started_under_another_token(running):
    write(running, "update job_starts set job_id = 99")
    assert "I5" in broken(running)
