"""From an edit to settled, and nothing more than that edit needs."""

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects
from tests.simulated import (
    Simulation,
    canonical,
    capture_spec,
    experiment_spec,
    texts,
)

EVERYTHING = ["capture", "decomposition", "decomposition", "geometry", "mapping", "steering"]
STAGES = ["capture", "coarse", "fine", "mapping", "steering"]
CUT = {"minCosine": 0.5}
"""Drops a child of the anchor, so the directions change; 0.35 drops none."""


@pytest.fixture
def fresh(tmp_path):
    return Simulation(tmp_path / "state")


# -- converging ------------------------------------------------------------------


def test_an_applied_experiment_settles_with_every_stage_ready(settled):
    assert [job.stage for job in settled.jobs()] == EVERYTHING
    names = {record.key.name for record in settled.objects()}
    assert names == {"france", *(f"france-{stage}" for stage in STAGES)}
    assert all(record.ready and not record.stalled for record in settled.objects())
    summary = settled.get("france").status.summary
    assert summary["stages"] == dict.fromkeys(STAGES, "Ready")
    assert (summary["gate"], summary["verdict"], summary["n"]) == ("GO", "Supported", 20)
    assert all(job.state == "succeeded" for job in settled.jobs())


def test_children_are_owned_by_their_experiment(settled):
    owner = settled.get("france")
    for stage in STAGES:
        child = settled.get(f"france-{stage}")
        assert (child.owner, child.owner_uid) == (owner.key, owner.uid)


def test_a_settled_system_writes_no_row_and_starts_no_job(settled):
    before = settled.rows()
    for _ in range(3):
        assert settled.resync() == []
    settled.restart()
    assert settled.settle() == []
    assert settled.apply() == "unchanged"
    assert settled.settle() == []
    assert settled.rows() == before


# -- edits -----------------------------------------------------------------------


def test_an_edit_of_the_cut_off_that_leaves_the_directions_runs_the_mapping_only(settled):
    old = settled.get("france-steering").status.artifact
    settled.apply(experiment_spec(mapping={"minCosine": 0.35}))
    assert settled.settle() == ["mapping"]
    assert settled.get("france-steering").status.artifact == old
    assert all(record.ready for record in settled.objects())


def test_an_edit_of_the_cut_off_that_changes_the_directions_runs_mapping_and_steering(settled):
    settled.apply(experiment_spec(mapping=CUT))
    assert settled.settle() == ["mapping", "steering"]


def test_an_edit_of_the_prompts_runs_everything_and_the_edit_back_runs_nothing(settled):
    before = {record.key: record.status.artifact for record in settled.objects()}
    other = {"target": texts("Paris is", "Nice is"), "neutral": texts("Rome is", "Oslo is")}
    settled.apply(experiment_spec(prompts=other))
    assert settled.settle() == [stage for stage in EVERYTHING if stage != "geometry"]
    settled.apply(experiment_spec())
    assert settled.settle() == []
    assert {record.key: record.status.artifact for record in settled.objects()} == before


def test_an_edit_that_leaves_the_candidates_runs_nothing_heavy(settled):
    settled.apply(experiment_spec(selection={"maxQ": 0.04}))
    assert "decomposition" not in (ran := settled.settle()) and "capture" not in ran
    assert settled.get("france-coarse").status.observed_generation == 2


def test_an_edit_that_changes_the_candidates_runs_the_mapping_but_encodes_nothing(settled):
    settled.apply(experiment_spec(selection={"top": 1}))
    assert settled.settle() == ["mapping"]
    assert settled.get("france-coarse").status.summary["candidates"] == [0]


def test_labels_change_no_generation_and_start_nothing(settled):
    with settled.state.database.write() as connection:
        key = Key("Experiment", "default", "france")
        objects.apply(connection, key, experiment_spec(), now=0.0, labels={"team": "a"})
    assert settled.settle() == []
    assert settled.get("france").generation == 1 and settled.get("france").ready


def test_steering_removed_from_the_spec_removes_the_child(settled):
    settled.apply(experiment_spec(steering=None))
    assert settled.settle() == []
    assert "france-steering" not in {record.key.name for record in settled.objects()}
    assert settled.get("france").ready
    assert "steering" not in settled.get("france").status.summary["stages"]


def test_an_enforced_gate_that_says_no_leaves_steering_ready_without_a_job(fresh):
    gate = {"minSubfeatures": 9, "policy": "enforce"}
    fresh.apply(experiment_spec(gate=gate))
    assert fresh.settle() == EVERYTHING[:-1]
    steering = fresh.get("france-steering")
    assert steering.ready and steering.status.artifact is None
    assert fresh.reason("france-steering") == "GateNoGo"
    summary = fresh.get("france").status.summary
    assert summary["verdict"] == "NotTestable"
    assert summary["reason"].startswith("steering did not run: ")


def test_no_candidate_at_all_is_an_answer_not_a_failure(fresh):
    fresh.apply(experiment_spec(selection={"minSelectivity": 1.0}))
    assert fresh.settle() == EVERYTHING[:-1]
    assert fresh.get("france").ready
    assert fresh.reason("france-steering") == "NoAnchor"


# -- sharing, superseding, removing -----------------------------------------------


def test_two_experiments_share_one_capture_job_and_one_artifact(fresh):
    fresh.apply(name="france")
    fresh.apply(experiment_spec(mapping=CUT), name="twin")
    fresh.step_until_running()
    assert [job.stage for job in fresh.jobs()] == ["capture"]
    fresh.workers.complete()
    fresh.step()
    france, twin = fresh.get("france-capture"), fresh.get("twin-capture")
    assert france.ready and twin.ready and france.status.artifact == twin.status.artifact
    assert [job.stage for job in fresh.jobs()] == EVERYTHING[:3]


def test_a_running_job_that_an_edit_makes_unwanted_is_cancelled(fresh):
    fresh.apply(capture_spec(), "cap", "Capture")
    fresh.step_until_running()
    fresh.apply(capture_spec(hook="blocks.1.hook_resid_post"), "cap", "Capture")
    fresh.step()
    assert (fresh.jobs()[0].state, fresh.jobs()[0].reason) == ("cancelled", "Superseded")
    assert fresh.workers.complete() == ["capture (fenced)"]
    assert fresh.settle() == ["capture"]
    assert "Superseded" in fresh.event_reasons("cap")


def test_a_running_job_that_an_edit_does_not_concern_goes_on(fresh):
    fresh.apply()
    fresh.step_until_running()
    fresh.apply(experiment_spec(mapping=CUT))
    fresh.step()
    assert [job.state for job in fresh.jobs()] == ["running"]
    assert fresh.workers.complete() == ["capture"]


def test_a_deleted_experiment_takes_children_and_jobs_along_and_leaves_artifacts(fresh):
    fresh.apply()
    fresh.step_until_running()
    fresh.workers.complete()
    fresh.step_until_running()
    folder = fresh.artifact_folder("france-capture")
    fresh.delete()
    fresh.step()
    assert fresh.objects() == []
    assert {job.state for job in fresh.jobs()} == {"succeeded", "cancelled"}
    assert folder.is_dir()


def test_a_job_that_another_experiment_still_wants_survives_a_deletion(fresh):
    fresh.apply(name="france")
    fresh.apply(name="twin")
    fresh.step_until_running()
    fresh.delete("france")
    fresh.step()
    assert [job.state for job in fresh.jobs()] == ["running"]
    assert fresh.workers.complete() == ["capture"]


def test_a_hand_edit_of_an_owned_child_is_reverted_with_an_event(settled):
    child = settled.get("france-mapping")
    with settled.state.database.write() as connection:
        edited = {**child.spec, "minCosine": 0.9}
        owner = objects.get(connection, Key("Experiment", "default", "france"))
        objects.apply(connection, child.key, edited, now=0.0, owner=owner, labels=child.labels)
    settled.settle()
    assert settled.get("france-mapping").spec == child.spec
    assert settled.get("france-mapping").ready
    assert settled.event_reasons("france").count("Configured") == 1


def test_a_child_deleted_by_hand_comes_back_without_running_anything(settled):
    settled.delete("france-fine", "Decomposition")
    assert settled.settle() == []
    assert settled.get("france-fine").ready and settled.get("france").ready


def test_a_name_taken_by_someone_else_stalls_the_experiment_until_it_is_free(fresh):
    mapping = {"coarseRef": {"name": "a"}, "fineRef": {"name": "b"}}
    fresh.apply(canonical("Mapping", mapping), name="france-mapping", kind="Mapping")
    fresh.apply()
    assert fresh.settle() == []
    assert fresh.reason("france") == "OwnedByAnother"
    assert fresh.get("france").stalled
    before = fresh.rows()
    assert fresh.resync() == []
    assert fresh.rows() == before
    fresh.delete("france-mapping", "Mapping")
    fresh.step_until_running()
    assert not fresh.get("france").stalled


# -- single kinds ------------------------------------------------------------------


def test_a_decomposition_applied_before_its_capture_is_done_when_the_capture_appears(fresh):
    spec = experiment_spec()
    decomposition = {"captureRef": {"name": "cap"}, "dictionary": spec["dictionaries"]["coarse"]}
    fresh.apply(canonical("Decomposition", decomposition), "dec", "Decomposition")
    assert fresh.settle() == []
    assert fresh.reason("dec") == "ReferenceNotFound" and fresh.get("dec").stalled
    fresh.apply(capture_spec(), "cap", "Capture")
    assert fresh.settle() == ["capture", "decomposition"]
    assert fresh.get("dec").ready


def test_an_object_whose_reference_was_deleted_says_so(settled):
    settled.apply(
        canonical("Mapping", {"coarseRef": {"name": "x"}, "fineRef": {"name": "france-fine"}}),
        "own", "Mapping",
    )  # fmt: skip
    settled.settle()
    assert "decomposition/x does not exist" in settled.words()["own"]


def test_a_retry_by_hand_runs_a_stalled_stage_again(fresh):
    fresh.workers.failures["capture"] = ("BadWeights", False)
    fresh.apply(capture_spec(), "cap", "Capture")
    fresh.settle()
    assert fresh.get("cap").stalled
    fresh.workers.failures.clear()
    with fresh.state.database.write() as connection:
        jobs.retry(connection, fresh.jobs()[0].id, now=fresh.clock.now())
    assert not fresh.is_settled()
    assert fresh.settle() == ["capture"]
    assert fresh.get("cap").ready and "BadWeights" in fresh.event_reasons("cap")
