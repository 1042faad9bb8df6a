"""What one step of the loop may read: no payload, and so many bytes of an artifact."""

import errno
import re

import pytest
from sqlalchemy import event

from loopscope.controller.jobs.job_upkeep import CANCELLED_PER_CALL
from loopscope.controller.observer import Unobserved
from loopscope.controller.reconcile import adoption
from loopscope.specs.keys import Key
from loopscope.state import failpoints, files
from loopscope.state.artifacts import folder_store as artifacts
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import jobs, pauses, tables
from tests.simulated import Simulation, capture_spec, experiment_spec, texts

MIB = 2**20
LARGE = 9 * MIB


def seal_large(simulation, stage="capture", digest="ab" * 32):
    """Return a staging folder with one large payload, and its record."""
    store = simulation.state.artifacts
    staging = store.staging_folder(digest, 1)
    (staging / "residual.safetensors").write_bytes(bytes(LARGE))
    told = {"stage": stage, "digest": digest, "metrics": {}, "createdAt": 1.0}
    return staging, store.seal(staging, told)


@pytest.fixture
def hashed(monkeypatch):
    """The bytes that were hashed slice by slice since the list was emptied."""
    seen, real = [], files.sha256_in_slices

    def counted(path):
        slices = real(path)
        while True:
            try:
                size = next(slices)
            except StopIteration as ended:
                return ended.value
            seen.append(size)
            yield size

    monkeypatch.setattr(artifacts, "sha256_in_slices", counted)
    return seen


# -- artifacts ---------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, hashed):
    """A folder with one large artifact; a resync may hash two MiB."""
    simulation = Simulation(tmp_path / "state", verify_bytes_per_resync=2 * MIB)
    simulation.step()
    staging, record = seal_large(simulation)
    with simulation.state.database.write() as connection:
        artifact_index.record(connection, simulation.state.artifacts.publish(staging, record))
    hashed.clear()
    return simulation, record


def repeat_while(condition, act, at_most=60):
    """Act while it is so, and not for ever."""
    for _ in range(at_most):
        if not condition():
            return
        act()
    raise AssertionError("it never ends")


def resync(simulation):
    simulation.clock.advance(simulation.settings.resync_seconds + 1)
    simulation.step()


def test_a_large_artifact_is_hashed_over_many_resyncs_and_never_more_than_a_slice_too_much(
    large, hashed
):
    simulation, _ = large
    rounds = 0
    while sum(hashed) < LARGE:
        before = sum(hashed)
        resync(simulation)
        assert 0 < sum(hashed) - before <= 2 * MIB + files.SLICE_BYTES
        rounds += 1
    assert rounds >= LARGE // (2 * MIB)
    simulation.step()
    assert simulation.controller.idle, "the rest is for the next resync"


def test_damage_at_the_end_of_a_large_artifact_is_found_and_looked_at_twice(large, hashed):
    simulation, record = large
    store = simulation.state.artifacts
    payload = store.folder("capture", record.digest) / "residual.safetensors"
    payload.write_bytes(bytes(LARGE - 1) + b"x")
    repeat_while(lambda: simulation.controller.idle, lambda: resync(simulation))
    assert store.stands(record), "one look is no evidence"

    def step_and_count():
        before = sum(hashed)
        simulation.step()
        assert sum(hashed) - before <= 2 * MIB + files.SLICE_BYTES

    repeat_while(lambda: not simulation.controller.idle, step_and_count)
    assert sum(hashed) == 2 * LARGE and not store.stands(record)
    with simulation.state.database.read() as connection:
        assert artifact_index.get(connection, record.digest) is None


def test_an_artifact_that_was_made_whole_between_two_looks_stays(large, hashed):
    simulation, record = large
    payload = simulation.state.artifacts.folder("capture", record.digest) / "residual.safetensors"
    payload.write_bytes(bytes(LARGE - 1) + b"x")
    repeat_while(lambda: simulation.controller.idle, lambda: resync(simulation))
    payload.write_bytes(bytes(LARGE))
    repeat_while(lambda: not simulation.controller.idle, simulation.step)
    with simulation.state.database.read() as connection:
        assert artifact_index.get(connection, record.digest) == record
    simulation.state.artifacts.verify(record)


def test_what_changed_after_the_second_look_is_left_to_the_next_round(large, hashed):
    simulation, record = large
    payload = simulation.state.artifacts.folder("capture", record.digest) / "residual.safetensors"
    payload.write_bytes(bytes(LARGE - 1) + b"x")
    verifier, database = simulation.controller._verifier, simulation.state.database
    repeat_while(lambda: not verifier.damaged, lambda: verifier.verify_some(database))
    payload.write_bytes(bytes(LARGE))
    assert list(verifier.set_damaged_aside(simulation.state.database)) == [[]]
    simulation.state.artifacts.verify(record)


def test_an_unknown_artifact_is_taken_over_in_slices_while_edits_are_seen(
    tmp_path, hashed, monkeypatch
):
    monkeypatch.setattr(adoption, "BYTES_PER_STEP", 2 * MIB)
    simulation = Simulation(tmp_path / "state")
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step_until_running()
    (job,) = simulation.jobs()
    staging, record = seal_large(simulation, digest=job.digest)
    simulation.state.artifacts.publish(staging, record)  # and killed before the commit
    hashed.clear()
    simulation.workers.die()
    simulation.clock.advance(1.5)
    steps = 0
    while not simulation.get("cap").ready:
        before = sum(hashed)
        simulation.apply(capture_spec(maxTokens=50 + steps), "other", "Capture")
        simulation.step()
        other = simulation.get("other")
        assert other.status.observed_generation == other.generation
        assert sum(hashed) - before <= 2 * MIB + files.SLICE_BYTES
        steps += 1
    assert steps > 3 and sum(hashed) == LARGE
    with simulation.state.database.read() as connection:
        assert artifact_index.get(connection, job.digest) == record
        assert jobs.head(connection, job.id).state == "succeeded"


def test_what_cannot_be_read_now_holds_up_no_other_artifact_and_no_processor(
    tmp_path, hashed, monkeypatch
):
    monkeypatch.setattr(adoption, "BYTES_PER_STEP", 2 * MIB)
    simulation = Simulation(tmp_path / "state", slots=2)
    for name, tokens in (("first", 50), ("second", 51)):
        simulation.apply(capture_spec(maxTokens=tokens), name, "Capture")
        simulation.step_until_running()
    for job in simulation.jobs():
        simulation.state.artifacts.publish(*seal_large(simulation, digest=job.digest))
    unreadable, counted = simulation.get("first").wanted_digest, artifacts.sha256_in_slices

    def without_descriptors(path):
        if unreadable in str(path):
            raise OSError(errno.EMFILE, "Too many open files")
        return (yield from counted(path))

    monkeypatch.setattr(artifacts, "sha256_in_slices", without_descriptors)
    simulation.workers.die()
    simulation.clock.advance(1.5)
    repeat_while(lambda: not simulation.get("second").ready, simulation.step)
    assert not simulation.get("first").ready and simulation.controller.trouble
    assert simulation.controller.step() > simulation.clock.elapsed()


# -- payloads ----------------------------------------------------------------------------


def test_no_step_of_the_loop_reads_a_payload(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=2)
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    def step():
        event.listen(simulation.state.database.dialect.engine, "before_cursor_execute", note)
        try:
            simulation.step()
        finally:
            event.remove(simulation.state.database.dialect.engine, "before_cursor_execute", note)

    def pass_time(steps, seconds):
        for _ in range(steps):
            step()
            simulation.clock.advance(seconds)

    with simulation.state.database.write() as connection:
        pauses.pause(connection, "all", now=simulation.clock.now())
    simulation.apply()
    for n in range(5):
        spec = capture_spec(prompts={"target": texts(f"a {n}"), "neutral": texts("b")})
        simulation.apply(spec, f"cap-{n}", "Capture")
    pass_time(4, 11.0)  # resyncs, while everything waits
    with simulation.state.database.write() as connection:
        pauses.resume(connection, "all")
    pass_time(2, 1.0)  # jobs start
    simulation.delete("cap-4", "Capture")  # a job that nobody wants any more
    simulation.workers.die()
    pass_time(2, 2.0)  # leases are taken back
    for _ in range(30):
        step()
        simulation.workers.complete()
        simulation.clock.advance(0.5)
    assert simulation.get("france").ready and simulation.get("cap-0").ready
    read = [s for s in statements if re.match(r"\s*select", s, re.I) and "payload" in s]
    assert len(statements) > 100 and read == []


def test_the_payload_stands_last_in_its_row():
    """SQLite reads a row up to the last column that is asked for; a payload has many pages."""
    assert tables.jobs.columns.keys()[-1] == "payload"


def test_what_is_to_be_known_of_a_payload_stands_in_columns(settled):
    settled.apply(experiment_spec(mapping={"minCosine": 0.5}))
    settled.step_until_running()
    (job,) = [job for job in settled.jobs() if job.state == "running"]
    read = {job.payload[side]["digest"] for side in ("coarse", "fine")}
    with settled.state.database.read() as connection:
        assert read <= jobs.active_inputs(connection)
    captures = [job for job in settled.jobs() if job.stage == "capture"]
    assert [job.model for job in captures] == [captures[0].payload["model"]["identity"]]


def test_captures_are_served_together_only_where_the_model_sees_the_same(capture):
    spec = capture_spec()
    others = {
        "deeper": {"hook": "blocks.0.hook_resid_post"},
        "texts": {"prompts": {"target": texts("x"), "neutral": texts("y")}},
    }
    for name, changes in others.items():
        capture.apply({**spec, **changes}, name, "Capture")
    capture.step_until_running()
    capture.step()
    first, *rest = capture.jobs()
    deeper = next(job for job in rest if job.object == Key("Capture", "default", "deeper"))
    with capture.state.database.read() as connection:
        assert jobs.served_by(connection, first) == [deeper.id]


def test_a_job_starts_when_its_backoff_is_over_though_nothing_was_written_meanwhile(capture):
    capture.workers.failures["capture"] = ("OutOfMemory", True)
    capture.step_until_running()
    capture.workers.complete()
    for _ in range(5):
        capture.step()
    (job,) = capture.jobs()
    assert capture.workers.assigned == {} and job.not_before > capture.clock.now()
    capture.clock.advance(job.not_before - capture.clock.now())
    capture.step()
    assert capture.workers.assigned != {}


# -- work ----------------------------------------------------------------------------------


class Slow(Unobserved):
    """Lets time pass with each reconcile."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.keys = clock, seconds, []

    def reconciled(self, key, result, seconds):
        self.clock.advance(self.seconds)
        self.keys.append(key)


def many_captures(path, count):
    simulation = Simulation(path)
    for n in range(count):
        spec = capture_spec(prompts={"target": texts(f"a {n}"), "neutral": texts("b")})
        simulation.apply(spec, f"cap-{n:02d}", "Capture")
    return simulation


def test_jobs_start_before_all_of_many_objects_were_looked_at(tmp_path):
    simulation = many_captures(tmp_path / "state", 40)
    slow = Slow(simulation.clock, seconds=0.2)
    simulation.controller.watch_with(slow)
    simulation.step()
    assert simulation.workers.assigned != {} and len(slow.keys) <= 4
    repeat_while(lambda: len(set(slow.keys)) < 40, simulation.step)


def test_jobs_that_nobody_wants_are_cancelled_so_many_a_step(tmp_path):
    count = CANCELLED_PER_CALL + 5
    simulation = many_captures(tmp_path / "state", count)
    with simulation.state.database.write() as connection:
        pauses.pause(connection, "all", now=simulation.clock.now())
    simulation.step()
    assert [job.state for job in simulation.jobs()] == ["pending"] * count
    for n in range(count):
        simulation.delete(f"cap-{n:02d}", "Capture")
    simulation.step()
    assert sum(job.state == "cancelled" for job in simulation.jobs()) == CANCELLED_PER_CALL
    simulation.step()
    assert {job.state for job in simulation.jobs()} == {"cancelled"}


def test_a_step_whose_time_is_up_is_not_idle_before_it_read_what_it_wrote(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()

    def take_long(name):
        if name == "plan-committed":
            simulation.clock.advance(1.0)

    with failpoints.handled_by(take_long):
        simulation.step()
    assert len(simulation.objects()) > 1, "the experiment made what it owns"
    assert not simulation.controller.idle
    for _ in range(30):
        simulation.step()
        simulation.workers.complete()
        simulation.clock.advance(0.5)
    assert simulation.get("france").ready
