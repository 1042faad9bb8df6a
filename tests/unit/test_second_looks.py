"""Somebody writes between a look and the transaction that acts on it: the second look sees it."""

from dataclasses import replace

import pytest

from loopscope.controller.apply.appliers import Applier
from loopscope.controller.jobs.job_upkeep import cancel_unwanted
from loopscope.controller.plan.requests import TRIES_MAX, Request, fulfil, read_files
from loopscope.controller.reconcile.adoption import AtOnce
from loopscope.controller.reconcile.commit import commit
from loopscope.controller.reconcile.snapshots import Observer, known_of, read_snapshot
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.reconcilers.stage import plan_stage
from loopscope.specs.keys import PROTECT_ANNOTATION, SOURCE_ANNOTATION, Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.trash import Trash
from loopscope.state.db import applied, jobs, objects
from loopscope.state.db.objects import Conflict, Protected
from loopscope.state.failures import TerminalFailure, TransientFailure
from tests.moments import somebody
from tests.simulated import Simulation, settled_experiment
from tests.unit.test_apply_ownership import mapping
from tests.unit.test_controller_folder_source import World

# -- pruning -----------------------------------------------------------------------------------


def moved_away(old):
    return {**old.annotations, SOURCE_ANNOTATION: "/another/folder/a.yaml"}


def protected(old):
    return {**old.annotations, PROTECT_ANNOTATION: "true"}


def edit_annotations(state, key, edit):
    """Do what somebody else's apply does; nothing when the object is gone already."""
    with state.database.write() as connection:
        old = objects.get(connection, key)
        if old is not None:
            objects.apply(connection, key, old.spec, now=0.0, annotations=edit(old))
    return old is not None


@pytest.mark.parametrize("edit", [moved_away, protected], ids=lambda e: e.__name__)
def test_a_watched_folder_prunes_nothing_that_somebody_took_over_meanwhile(tmp_path, edit):
    """At whichever of its transactions they come: as long as they find it, it stays."""
    key = Key("Mapping", "default", "a")
    for nth in range(1, 20):
        world = World(tmp_path / str(nth))
        world.write("a.yaml")
        world.write("b.yaml")
        world.scan()
        (world.folder / "a.yaml").unlink()
        found = []
        with somebody(
            lambda world=world, found=found: found.append(
                edit_annotations(world.simulation.state, key, edit)
            ),
            at="transaction-begin",
            nth=nth,
        ):
            world.scan()
        if found != [True]:
            break  # they came too late: the scan had fewer transactions, or it was gone
        assert world.names() == {"a", "b"}
    assert nth > 1 and world.names() == {"b"}


@pytest.fixture
def team(tmp_path, loopscope):
    """An apply set of two, of which one file is gone."""
    for name in "ab":
        path = tmp_path / "team" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(mapping(name))
    loopscope("apply", "-f", "team", "--root", tmp_path, "--apply-set", "team")
    (tmp_path / "team" / "a.yaml").unlink()
    simulation = Simulation(tmp_path / "state")

    def prune():
        applier = Applier("apply-set:team")
        request = Request((SpecSource(tmp_path / "team", tmp_path),), applier, prune=True)
        return fulfil(simulation.state, read_files(simulation.state, request, now=0.0), now=0.0)

    return simulation, prune


def names(simulation):
    return {record.key.name for record in simulation.objects()}


def test_a_prune_deletes_nothing_that_was_protected_meanwhile(team):
    simulation, prune = team
    key = Key("Mapping", "default", "a")

    def protect():
        edit_annotations(simulation.state, key, protected)

    with somebody(protect, at="transaction-begin") as came, pytest.raises(Protected):
        prune()
    assert came and names(simulation) == {"a", "b"}


def test_a_prune_deletes_nothing_that_another_set_took_over_meanwhile(team):
    simulation, prune = team
    key = Key("Mapping", "default", "a")

    def take_over():
        with simulation.state.database.write() as connection:
            record = applied.get(connection, key, objects.get(connection, key).uid)
            applied.record(connection, replace(record, manager="apply-set:yours"))

    with somebody(take_over, at="transaction-begin") as came:
        assert prune().removed == []
    assert came and names(simulation) == {"a", "b"}
    assert prune().removed == []


# -- edits -------------------------------------------------------------------------------------


@pytest.fixture
def edit(loopscope, experiment, tmp_path):
    """A settled experiment and an edit of its mapping, as far as it was read from the file."""
    loopscope("apply", "-f", experiment())
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    path = experiment(lambda spec: spec.update(mapping={"minCosine": 0.5}))
    reading = read_files(simulation.state, Request((SpecSource(path, tmp_path),)), now=0.0)
    return simulation, lambda: fulfil(simulation.state, reading, now=0.0)


X = Key("Experiment", "default", "x")


def test_an_edit_is_judged_again_when_somebody_protected_the_object_meanwhile(edit):
    simulation, store = edit

    def protect():
        edit_annotations(simulation.state, X, protected)

    before = simulation.get("x").spec
    with (
        somebody(protect, at="transaction-begin") as came,
        pytest.raises(Protected, match="x-mapping"),
    ):
        store()
    assert came and simulation.get("x").spec == before


def test_an_edit_beside_an_edit_that_changes_nothing_for_it_is_stored_at_the_next_try(edit):
    simulation, store = edit

    def note():
        edit_annotations(simulation.state, X, lambda old: {**old.annotations, "note": "hello"})

    with somebody(note, at="transaction-begin") as came:
        assert [done.outcome for done in store().applied] == ["configured"]
    found = simulation.get("x")
    assert came and found.spec["mapping"]["minCosine"] == 0.5 and found.annotations["note"]


def test_an_edit_that_others_come_before_each_time_is_given_up_and_nothing_is_stored(edit):
    simulation, store = edit
    before, notes = simulation.get("x").spec, iter(range(100))

    def note():
        edit_annotations(
            simulation.state, X, lambda old: {**old.annotations, "n": f"{next(notes)}"}
        )

    with (
        somebody(note, at="transaction-begin", again=True) as came,
        pytest.raises(TransientFailure) as refused,
    ):
        store()
    assert refused.value.reason == "Conflict" and len(came) == TRIES_MAX
    assert simulation.get("x").spec == before


def test_a_plan_that_somebody_overtook_in_the_last_moment_is_not_carried_out(
    loopscope, experiment, tmp_path
):
    loopscope("apply", "-f", experiment())
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    path = experiment(lambda spec: spec.update(mapping={"minCosine": 0.5}))
    reading = read_files(simulation.state, Request((SpecSource(path, tmp_path),)), now=0.0)
    old = simulation.get("x")
    expected = {"/".join(X): old.resource_version}

    def note():
        edit_annotations(simulation.state, X, lambda old: {**old.annotations, "note": "hello"})

    with somebody(note, at="transaction-begin"), pytest.raises(TerminalFailure) as refused:
        fulfil(simulation.state, reading, now=0.0, expected=expected)
    assert refused.value.reason == "PlanOutdated" and simulation.get("x").spec == old.spec


# -- cancelling ----------------------------------------------------------------------------------


def test_a_job_that_somebody_comes_to_want_is_not_cancelled_in_the_last_moment(capture):
    capture.step_until_running()
    (job,) = capture.jobs()
    read = capture.get("cap")

    def wanted(digest):
        with capture.state.database.write() as connection:
            record = objects.get(connection, read.key)
            objects.update_status(connection, record, record.status, digest)

    wanted(None)
    with somebody(lambda: wanted(job.digest), at="transaction-begin") as came:
        cancel_unwanted(capture.state.database, capture.clock)
    assert came and capture.jobs()[0].state == "running"
    wanted(None)
    cancel_unwanted(capture.state.database, capture.clock)
    assert (capture.jobs()[0].state, capture.jobs()[0].reason) == ("cancelled", "Superseded")
    assert "Superseded" in capture.event_reasons("cap")


def test_a_job_that_ended_in_the_last_moment_is_not_called_superseded(capture):
    capture.step_until_running()
    (job,) = capture.jobs()
    with capture.state.database.write() as connection:
        record = objects.get(connection, capture.get("cap").key)
        objects.update_status(connection, record, record.status, None)
    with somebody(capture.workers.complete, at="job-cancel") as came:
        cancel_unwanted(capture.state.database, capture.clock)
    assert came and [one.state for one in capture.jobs() if one.id == job.id] == ["succeeded"]
    assert "Superseded" not in capture.event_reasons("cap")


# -- committing a plan ---------------------------------------------------------------------------


def planned(simulation, name):
    """Return the snapshot and the plan of a stage object as it stands."""
    key = simulation.get(name).key
    with simulation.state.database.read() as connection:
        snapshot = read_snapshot(connection, key, simulation.clock.now())
        desired = DESIRED_BY_KIND[key.kind](snapshot)
        known = known_of(connection, desired, key)
    artifacts = simulation.state.artifacts
    observed = Observer(artifacts, AtOnce(artifacts)).observe(snapshot, desired, known)
    return snapshot, plan_stage(snapshot, desired, observed)


def carry_out(simulation, snapshot, plan):
    with simulation.state.database.write() as connection:
        commit(connection, simulation.state.artifacts, snapshot, plan, simulation.clock.now())


def throw_away(simulation, name):
    """Do what a collection does with the artifact of an object."""
    place = simulation.artifact_folder(name)
    with simulation.state.database.write() as connection:
        artifact_index.forget(connection, place.name)
        trash = Trash(simulation.state.artifacts.root)
        trash.put(place, place.parent.name, place.name, now=simulation.clock.now())


def test_no_plan_rests_on_an_artifact_that_was_collected_since_the_look(settled):
    snapshot, plan = planned(settled, "france-mapping")
    assert plan.status.artifact is not None
    throw_away(settled, "france-mapping")
    before = settled.rows()
    with pytest.raises(Conflict):
        carry_out(settled, snapshot, plan)
    assert settled.rows() == before


def test_no_plan_takes_over_an_artifact_that_was_collected_since_the_look(settled):
    digest = settled.artifact_folder("france-mapping").name
    with settled.state.database.write() as connection:
        artifact_index.forget(connection, digest)
    snapshot, plan = planned(settled, "france-mapping")
    assert plan.adopt is not None
    place = settled.artifact_folder("france-mapping")
    trash = Trash(settled.state.artifacts.root)
    trash.put(place, "mapping", place.name, now=settled.clock.now())
    before = settled.rows()
    with pytest.raises(Conflict):
        carry_out(settled, snapshot, plan)
    assert settled.rows() == before


@pytest.mark.parametrize("upstream", ["france-coarse", "france-fine"])
def test_no_job_is_added_for_an_input_that_was_collected_since_the_look(settled, upstream):
    throw_away(settled, "france-mapping")
    Trash(settled.state.artifacts.root).empty(9e9)
    snapshot, plan = planned(settled, "france-mapping")
    assert plan.enqueue is not None
    throw_away(settled, upstream)
    before = settled.rows()
    with pytest.raises(Conflict):
        carry_out(settled, snapshot, plan)
    assert settled.rows() == before
    assert settled.resync() == ["mapping"], "the input came back from the trash"
    assert settled.get("france").ready


def test_a_plan_whose_inputs_still_lie_there_is_carried_out(settled):
    throw_away(settled, "france-mapping")
    Trash(settled.state.artifacts.root).empty(9e9)
    carry_out(settled, *planned(settled, "france-mapping"))
    assert [job.stage for job in settled.jobs() if job.state == "pending"] == ["mapping"]


# -- taking over what exists ----------------------------------------------------------------------


def unindexed(simulation):
    """Leave the job's artifact whole on the disk, as a crash after the rename does."""
    simulation.step_until_running()
    simulation.workers.crash_after_rename()
    return simulation.jobs()[0]


@pytest.mark.parametrize("state", ["running", "pending"])
def test_an_artifact_that_is_taken_over_ends_the_active_job_without_a_run(capture, state):
    job = unindexed(capture)
    if state == "pending":
        with capture.state.database.write() as connection:
            jobs.release(connection, job.id, job.token)
    carry_out(capture, *planned(capture, "cap"))
    (ended,) = capture.jobs()
    assert (ended.state, ended.finished_at) == ("succeeded", capture.clock.now())
    assert (ended.lease_expires_at, ended.reason) == (None, None)
    with capture.state.database.write() as connection, pytest.raises(jobs.Fenced):
        jobs.heartbeat(connection, job.id, job.token, 30.0, now=capture.clock.now())
    capture.workers.stop()
    assert capture.settle() == [] and len(capture.jobs()) == 1


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_an_artifact_that_is_taken_over_leaves_a_job_that_ended_as_it_ended(capture, how):
    job = unindexed(capture)
    with capture.state.database.write() as connection:
        if how == "cancelled":
            jobs.cancel(connection, job.id, "Superseded", "an edit", now=1.0)
        else:
            jobs.fail(
                connection, job.id, job.token, "Odd", "m", transient=False, now=1.0,
                policy=capture.settings.retry,
            )  # fmt: skip
    (before,) = capture.jobs()
    carry_out(capture, *planned(capture, "cap"))
    assert capture.jobs() == [before] and capture.get("cap").ready


def test_what_was_collected_while_a_steering_alone_rests_on_its_inputs_is_seen(tmp_path):
    """A second collection in the same process looks at the objects anew."""
    simulation = settled_experiment(tmp_path / "state")
    reachability = Reachability(simulation.state.artifacts)
    with simulation.state.database.read() as connection:
        before = reachability.reachable(connection)
    simulation.delete()
    with simulation.state.database.read() as connection:
        assert before and reachability.reachable(connection) == set()
