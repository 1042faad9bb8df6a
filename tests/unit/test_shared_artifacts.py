"""An artifact that several objects need and none owns: one digest, one job, everybody waits."""

import pytest

from loopscope.controller.plan.explaining import explain
from loopscope.controller.plan.older_rules import let_go, older_work_of
from loopscope.controller.plan.planning import plan_apply
from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.db import jobs, objects, pauses
from tests.simulated import Simulation, experiment_spec, texts


@pytest.fixture
def world(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(name="france")
    other = {"target": texts("Kyoto is", "Osaka is"), "neutral": texts("Rome is", "Oslo is")}
    simulation.apply(experiment_spec(prompts=other), name="japan")
    return simulation


def test_two_mappings_of_one_pair_wait_for_one_job(world):
    ran = world.settle()
    assert ran.count("geometry") == 1
    assert ran.count("mapping") == 2
    assert ran.index("geometry") < ran.index("mapping")
    with world.state.database.read() as connection:
        for name in ("france", "japan"):
            assert objects.get(connection, Key("Experiment", "default", name)).ready
            status = objects.get(connection, Key("Mapping", "default", f"{name}-mapping")).status
            assert status.artifact.stage == "mapping"


def test_what_is_finished_does_not_ask_for_it_again(world):
    world.settle()
    digest = _geometry(world)
    with world.state.database.write() as connection:
        artifact_index.forget(connection, digest)
    world.state.artifacts.quarantine("geometry", digest)
    world.clock.advance(60)
    assert world.settle() == []


def test_it_is_made_again_for_an_edit_that_reads_it(world):
    world.settle()
    digest = _geometry(world)
    with world.state.database.write() as connection:
        artifact_index.forget(connection, digest)
    world.state.artifacts.quarantine("geometry", digest)
    spec = experiment_spec()
    world.apply({**spec, "mapping": {**spec["mapping"], "minCosine": 0.5}})
    assert world.settle()[:2] == ["geometry", "mapping"]


def test_a_lost_index_takes_it_over_without_a_run(world):
    world.settle()
    with world.state.database.write() as connection:
        artifact_index.forget(connection, _geometry(world))
    spec = experiment_spec()
    world.apply({**spec, "mapping": {**spec["mapping"], "minCosine": 0.5}})
    assert "geometry" not in world.settle()


def test_its_failure_stalls_everybody_who_needs_it_and_a_retry_frees_them(world):
    world.workers.failures["geometry"] = ("OutOfMemory", False)
    world.settle()
    with world.state.database.read() as connection:
        mappings = objects.listed(connection, "Mapping")
        (job,) = [job for job in jobs.listed(connection, ended=True) if job.stage == "geometry"]
    assert all(mapping.stalled for mapping in mappings)
    world.workers.failures.clear()
    with world.state.database.write() as connection:
        jobs.retry(connection, job.id, now=world.clock.now())
    world.settle()
    with world.state.database.read() as connection:
        assert all(record.ready for record in objects.listed(connection))


def test_plan_and_why_name_it(world):
    while _geometry_job(world) is None:
        world.step()
        if _geometry_job(world) is None:
            world.workers.complete()
    key = Key("Mapping", "default", "france-mapping")
    with world.state.database.read() as connection:
        planned = plan_apply(
            connection,
            world.state.artifacts,
            [],
            now=world.clock.now(),
            unchanged=[
                Key("Experiment", "default", "france"),
                Key("Experiment", "default", "japan"),
            ],
        )
        told = explain(
            connection, world.state.artifacts, key, now=world.clock.now(), controlled=True
        )
    (row,) = [stage for stage in planned.stages if stage.key.kind == "geometry"]
    assert row.state == {"pending": "queued", "running": "running"}[_geometry_job(world).state]
    assert row.why[0].startswith("shared; needed by ")
    assert told.links[-1].job.stage == "geometry"


def test_plan_says_where_cosines_are_computed_anew_for_a_mapping(world):
    world.settle()
    spec = experiment_spec()
    for cut, said in ((0.25, False), (0.15, True)):
        world.apply({**spec, "mapping": {**spec["mapping"], "minCosine": cut}})
        with world.state.database.read() as connection:
            planned = plan_apply(
                connection,
                world.state.artifacts,
                [],
                now=world.clock.now(),
                unchanged=[Key("Experiment", "default", "france")],
            )
        (stage,) = [one for one in planned.stages if one.key.name == "france-mapping"]
        assert any("computed anew" in words for words in stage.why) == said


def test_it_stays_as_long_as_something_rests_on_it(world):
    world.settle()
    digest = _geometry(world)
    with world.state.database.read() as connection:
        assert digest in Reachability(world.state.artifacts).reachable(connection)
    for name in ("france", "japan"):
        world.delete(name)
    world.settle()
    with world.state.database.read() as connection:
        assert digest not in Reachability(world.state.artifacts).reachable(connection)


def test_rules_of_its_own_that_changed_run_nothing_until_somebody_confirms(world, monkeypatch):
    world.settle()
    before = world.get("france-mapping")
    monkeypatch.setitem(CODE_REVISIONS, "geometry", 2)
    monkeypatch.setitem(REVISION_NOTES, "geometry", {2: "another angle"})
    world.restart()
    assert world.settle() == []
    record = world.get("france-mapping")
    assert record.ready and record.status.artifact == before.status.artifact
    told = record.status.condition("RulesCurrent").message
    assert "geometry revision 1 -> 2: another angle" in told
    with world.state.database.write() as connection:
        roots = [Key("Experiment", "default", name) for name in ("france", "japan")]
        older = older_work_of(connection, world.state.artifacts, roots)
        assert {one.key.name for one in older} == {"france-mapping", "japan-mapping"}
        let_go(connection, older, now=world.clock.now())
    ran = world.settle()
    assert ran.count("geometry") == 1 and ran.count("mapping") == 2
    assert world.get("france-mapping").status.condition("RulesCurrent") is None


def test_its_rules_are_told_also_where_it_is_gone(world, monkeypatch):
    world.settle()
    digest = _geometry(world)
    with world.state.database.write() as connection:
        artifact_index.forget(connection, digest)
    world.state.artifacts.quarantine("geometry", digest)
    monkeypatch.setitem(CODE_REVISIONS, "geometry", 2)
    world.restart()
    assert world.settle() == []
    assert world.get("france-mapping").status.is_of_older_rules


def test_a_pause_of_its_own_stage_is_what_the_objects_say_that_wait_for_it(world):
    with world.state.database.write() as connection:
        pauses.pause(connection, "stage/geometry", now=world.clock.now())
    ran = _until_geometry_is_queued(world)
    assert "geometry" not in ran
    suspended = world.get("france-mapping").status.condition("Suspended")
    assert suspended is not None and "--stage geometry" in suspended.message
    with world.state.database.write() as connection:
        pauses.resume(connection, "stage/geometry")
    assert "geometry" in world.settle()


def test_a_pause_of_the_stage_that_needs_it_does_not_hold_it(world):
    with world.state.database.write() as connection:
        pauses.pause(connection, "stage/mapping", now=world.clock.now())
    _until_geometry_is_queued(world)
    for _ in range(4):
        suspended = world.get("france-mapping").status.condition("Suspended")
        assert (suspended is not None) == (_geometry_job(world) is None)
        world.workers.complete()
        world.step()
    with world.state.database.write() as connection:
        pauses.resume(connection, "stage/mapping")
    world.settle()
    assert world.get("france-mapping").ready


def _until_geometry_is_queued(world):
    ran = []
    while _geometry_job(world) is None:
        world.step()
        ran += [] if _geometry_job(world) else world.workers.complete()
    world.step()
    return ran


def _geometry(world) -> str:
    with world.state.database.read() as connection:
        (found,) = [a for a in artifact_index.listed(connection) if a.stage == "geometry"]
    return found.digest


def _geometry_job(world):
    with world.state.database.read() as connection:
        found = [job for job in jobs.listed(connection) if job.stage == "geometry"]
    return found[0] if found else None
