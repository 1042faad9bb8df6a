"""``queue``, ``pause``, ``resume``, ``cancel``, ``retry`` and ``rerun`` on the real store."""

import json
import time

import pytest

from loopscope.specs.pipeline import NODE_NAMES
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import jobs, pauses
from tests.simulated import Simulation, capture_spec, experiment_spec, settled_experiment, texts


@pytest.fixture
def simulation(tmp_path):
    made = Simulation(tmp_path / "state")
    made.apply()
    return made


@pytest.fixture
def queued(simulation):
    """The capture's job waits, because nothing may start."""
    with simulation.state.database.write() as connection:
        pauses.pause(connection, "all", now=0.0)
    simulation.step()
    simulation.step()
    assert [job.state for job in simulation.jobs()] == ["pending"]
    with simulation.state.database.write() as connection:
        pauses.resume(connection)
    return simulation


def table(out):
    """Return the rows of the queue by object."""
    lines = out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("ID"))
    rows = [line.split(maxsplit=8) for line in lines[start + 1 :]]
    return {row[3]: row for row in rows}


def document(loopscope, *words):
    return json.loads(loopscope("queue", "-o", "json", *words)[1])


def suspended(simulation, name):
    condition = simulation.get(name).status.condition("Suspended")
    return condition.message if condition else None


# -- queue ------------------------------------------------------------------------------


def test_the_queue_says_that_nobody_controls(loopscope, queued):
    out = loopscope("queue")[1]
    assert "No controller runs" in out
    assert table(out)["capture/france-capture"][5] == "Controller"


def test_what_waits_for_another_object_is_listed_with_it(loopscope, simulation):
    simulation.step_until_running()
    simulation.step()
    rows = table(loopscope("queue")[1])
    assert rows["capture/france-capture"][2] == "running"
    assert rows["mapping/france-mapping"][2:6:3] == ["waiting", "Upstream"]
    waiting = {one["object"]: one for one in document(loopscope)["upstream"]}
    assert waiting["decomposition/france-fine"]["reason"] == "InputsNotReady"
    assert "france-capture" in waiting["decomposition/france-fine"]["message"]


def test_a_second_job_waits_for_the_slot_and_json_says_it(loopscope, simulation):
    other = capture_spec(prompts={"target": texts("a"), "neutral": texts("b")})
    simulation.apply(other, "other", "Capture")
    simulation.step_until_running()
    simulation.step()
    found = document(loopscope)
    assert found["slots"] == {"cpu": {"taken": 1, "total": 1}}
    assert found["starts"] == {"lastMinute": 0, "perMinute": 60, "burst": None}  # long ago
    assert [(job["state"], job["waitsFor"] and job["waitsFor"]["reason"]) for job in found["jobs"]]\
        == [("running", None), ("pending", "Slot")]  # fmt: skip


def test_the_limits_come_from_the_file_beside_the_folder(loopscope, queued, tmp_path):
    (tmp_path / "state.conf").write_text("jobStartsPerMinute: 7\nslots: {cpu: 2, 'cuda:0': 1}\n")
    found = document(loopscope)
    assert found["starts"]["perMinute"] == 7
    assert set(found["slots"]) == {"cpu", "cuda:0"}


# -- pause and resume -------------------------------------------------------------------


@pytest.mark.parametrize("words", [["exp", "france"], ["--stage", "capture"], ["--all"]])
def test_what_is_paused_does_not_start_says_so_and_goes_on_after_resume(
    loopscope, simulation, words
):
    code, told, _ = loopscope("pause", *words)
    assert code == 0 and "default" not in told
    for _ in range(3):
        simulation.step()
        simulation.clock.advance(1)
    assert simulation.workers.assigned == {}
    assert simulation.reason("france-capture") == "Suspended"
    assert "resume" in suspended(simulation, "france-capture")
    assert table(loopscope("queue")[1])["capture/france-capture"][5] == "Suspended"
    (scope,) = document(loopscope)["paused"]
    named = told.removesuffix(" paused\n")
    assert scope["scope"].replace("/default/", "/") == named
    assert f"Paused: {named}, for" in loopscope("queue")[1]
    assert loopscope("resume", *words) == (0, f"{named} resumed\n", "")
    assert simulation.settle()[0] == "capture"
    assert suspended(simulation, "france-capture") is None


def test_a_pause_is_seen_at_once_and_not_at_the_next_resync(loopscope, queued):
    queued.step()
    queued.workers.complete()
    loopscope("pause", "exp", "france")
    queued.step()
    assert queued.reason("france-coarse") == "Suspended"
    assert suspended(queued, "france") is not None


def test_a_pause_and_its_end_are_seen_at_once_also_by_what_only_waits(loopscope, simulation):
    simulation.step_until_running()
    simulation.step()
    for word, is_held in (("pause", True), ("resume", False)):
        loopscope(word, "exp", "france")
        simulation.step()
        assert (suspended(simulation, "france-coarse") is not None) is is_held


def test_what_runs_goes_on(loopscope, simulation):
    simulation.step_until_running()
    loopscope("pause", "--all")
    assert simulation.workers.complete() == ["capture"]
    simulation.step()
    assert simulation.get("france-capture").ready and simulation.workers.assigned == {}


def test_work_that_somebody_else_wants_is_not_held_back(loopscope, simulation):
    simulation.apply(experiment_spec(), "twin")
    loopscope("pause", "exp", "france")
    simulation.step_until_running()
    assert simulation.workers.complete() == ["capture"]


def test_a_pause_writes_nothing_once_it_was_seen(loopscope, simulation):
    loopscope("pause", "exp", "france")
    for _ in range(3):
        simulation.step()
    before = simulation.rows()
    simulation.clock.advance(simulation.settings.resync_seconds + 1)
    simulation.step()
    assert simulation.rows() == before


def test_a_pause_says_what_was_expected(loopscope, queued):
    for words, hint in (
        ([], "one of KIND NAME, --stage STAGE or --all"),
        (["exp", "france", "--all"], "one of"),
        (["--stage", "coarse"], "capture, decomposition"),
        (["exp", "paris"], "there is only france"),
    ):
        code, out, err = loopscope("pause", *words)
        assert code in (1, 2) and out == "" and hint in err, words
    code, _, err = loopscope("resume", "exp", "france")
    assert code == 1 and "is not paused; nothing is" in err
    assert "was paused before" in loopscope("pause", "--all")[1] + loopscope("pause", "--all")[1]


# -- cancel, retry, rerun ---------------------------------------------------------------


def test_a_cancelled_job_stays_cancelled_until_it_is_retried(loopscope, simulation):
    simulation.step_until_running()
    assert "was cancelled by hand" in loopscope("cancel", "exp", "france")[1]
    assert simulation.workers.complete() == ["capture (fenced)"]
    simulation.settle()
    assert simulation.get("france-capture").stalled
    assert simulation.reason("france-capture") == "Cancelled"
    assert simulation.resync() == [], "also the next resync does not start it"
    assert "no job runs or waits" in loopscope("cancel", "cap", "france")[1]
    loopscope("retry", "cap", "france")
    simulation.clock.time = time.time() + 1  # commands have the machine's clock
    assert len(simulation.settle()) == 6 and simulation.get("france").ready


def test_a_cancel_is_seen_at_once(loopscope, queued):
    loopscope("cancel", "cap", "france")
    queued.step()
    assert queued.reason("france-capture") == "Cancelled"


def test_an_edit_starts_again_what_was_cancelled(loopscope, queued):
    loopscope("cancel", "cap", "france")
    queued.step()
    queued.apply(experiment_spec(hook="blocks.1.hook_resid_post"))
    assert len(queued.settle()) == 6


@pytest.mark.parametrize(
    ("start", "ran"),
    [
        ("steering", ["steering"]),
        ("mapping", ["mapping", "steering"]),
        ("fine", ["decomposition", "mapping", "steering"]),
        ("capture", ["capture", "decomposition", "decomposition", "mapping", "steering"]),
    ],
)
def test_rerun_makes_a_stage_and_those_after_it_again(loopscope, tmp_path, start, ran):
    """The geometry stays: it rests on the dictionaries alone, whatever was captured."""
    simulation = settled_experiment(tmp_path / "state")
    before = simulation.get("france-capture").status.artifact
    code, out, _ = loopscope("rerun", "france", "--from", start)
    assert code == 0 and out.count("is made again") == len(ran)
    told = [event for event in simulation.rows()["events"] if "Rerun" in event]
    assert len(told) == len(ran) and {event[4] for event in told} == {"Normal"}
    with simulation.state.database.read() as connection:
        assert len(artifact_index.digests(connection)) == 6 - len(ran)
    assert sorted(simulation.settle()) == sorted(ran)
    assert simulation.get("france").ready
    assert simulation.get("france-capture").status.artifact == before
    aside = tmp_path / "state" / "artifacts" / ".quarantine"
    assert len(list(aside.glob("*/*"))) == len(ran)


def test_rerun_of_an_unknown_stage_names_the_known_ones(loopscope, queued):
    code, _, err = loopscope("rerun", "france", "--from", "coarsefine")
    assert code == 2 and ", ".join(NODE_NAMES) in err
    assert "is not done yet" in loopscope("rerun", "france")[1]


def test_rerun_says_who_else_rests_on_it(loopscope, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    simulation.apply(experiment_spec(), "twin")
    assert simulation.settle() == []
    out = loopscope("rerun", "france", "--from", "mapping")[1]
    assert "also wanted by mapping/twin-mapping" in out
    assert simulation.settle() == ["mapping", "steering"], "once for both"


# -- what the queue does with priorities and shares ---------------------------------------


def apply_capture(simulation, name, **annotations):
    spec = capture_spec(prompts={"target": texts(name), "neutral": texts(f"not {name}")})
    simulation.apply(spec, name, "Capture")
    with simulation.state.database.write() as connection:
        from loopscope.specs.keys import Key
        from loopscope.state.db import objects

        key = Key("Capture", "default", name)
        objects.apply(connection, key, spec, now=0.0, annotations=annotations)


def started_in_order(simulation, steps=20):
    found = []
    for _ in range(steps):
        simulation.step()
        with simulation.state.database.read() as connection:
            found += [job.object.name for job in jobs.running(connection)]
        simulation.workers.complete()
        simulation.clock.advance(1)
    return found


def test_an_annotation_puts_an_object_into_a_priority_class(tmp_path):
    simulation = Simulation(tmp_path / "state")
    apply_capture(simulation, "a", **{"loopscope.dev/priority": "low"})
    apply_capture(simulation, "b")
    apply_capture(simulation, "c", **{"loopscope.dev/priority": "high"})
    assert started_in_order(simulation) == ["c", "b", "a"]


def test_jobs_that_do_not_fit_into_memory_together_run_one_after_the_other(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=2, memory_bytes={"cpu": 2**30})
    for name in ("a", "b"):
        apply_capture(simulation, name, **{"loopscope.dev/memory": "600MiB"})
    simulation.step()
    simulation.step()
    assert len(simulation.workers.assigned) == 1
    assert sorted(started_in_order(simulation)) == ["a", "b"]


def test_one_experiment_has_no_more_than_its_slots(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=2, slots_per_experiment=1)
    simulation.apply()
    simulation.step_until_running()
    simulation.workers.complete()
    simulation.step()
    simulation.step()
    assert len(simulation.workers.assigned) == 1, "coarse and fine could run at once"
