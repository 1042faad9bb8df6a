"""A waiting job of a class that preempts gets the slot of a lower one between two shards."""

import json
from dataclasses import replace

import pytest

from loopscope.controller.jobs.queue_view import read_view
from loopscope.reports.tables.queue import queue_table
from loopscope.specs.keys import PRIORITY_ANNOTATION, Key
from loopscope.state.db import events, jobs, objects, preemptions
from loopscope.state.db.jobs import Fenced
from tests.simulated import Simulation, capture_spec

CLASSES = {"urgent": 10, "normal": 0, "low": -6}


class Lab(Simulation):
    """Captures of classes on one slot; ``urgent`` preempts. Shards end when a test says so."""

    def __init__(self, path, **more):
        usual = {"priority_classes": CLASSES, "preempting_classes": ("urgent",)}
        super().__init__(path, **{**usual, **more})
        self.tokens = 10

    def ask(self, name, priority):
        """Apply a capture of its own work."""
        self.tokens += 1
        key, how = Key("Capture", "default", name), {PRIORITY_ANNOTATION: priority}
        spec = capture_spec(maxTokens=self.tokens)
        with self.state.database.write() as connection:
            objects.apply(connection, key, spec, now=self.clock.now(), annotations=how)

    def job(self, name):
        (found,) = [job for job in self.jobs() if job.object.name == name]
        return found

    def beat(self):
        """Let the workers be heard of; return for whom each job is to make room."""
        heard = {}
        for job_id, token in self.workers.assigned.values():
            with self.state.database.write() as connection:
                heard[job_id] = jobs.heartbeat(
                    connection, job_id, token, 30.0, now=self.clock.now()
                )
        return heard

    def end_a_shard(self):
        """Let every worker that is asked to give its job back; return the jobs."""
        given = [job_id for job_id, words in self.beat().items() if words is not None]
        for worker, (job_id, _) in list(self.workers.assigned.items()):
            if job_id in given:
                with self.state.database.write() as connection:
                    job = jobs.head(connection, job_id)
                    preemptions.make_room(connection, job, now=self.clock.now())
                del self.workers.assigned[worker]
                self.workers._ended.append(job_id)
        return given

    def running(self):
        return [job.object.name for job in self.jobs() if job.state == "running"]

    def events_of(self, name, reason):
        with self.state.database.read() as connection:
            found = events.listed(connection, Key("Capture", "default", name))
        return [event.message for event in found if event.reason == reason]

    def view(self):
        with self.state.database.read() as connection:
            return read_view(connection, self.state.path, self.settings, self.clock.now())


@pytest.fixture
def lab(tmp_path):
    """The capture ``slow`` of the class ``low`` runs on the only slot."""
    made = Lab(tmp_path / "state")
    made.ask("slow", "low")
    made.step_until_running()
    return made


@pytest.fixture
def asked(lab):
    """And ``now``, of the class ``urgent``, came and asked for its slot."""
    lab.ask("now", "urgent")
    lab.look_on(3)
    return lab


def test_who_is_asked_makes_room_at_the_end_of_a_shard_and_goes_on_later(asked):
    slow, now = asked.job("slow"), asked.job("now")
    assert asked.running() == ["slow"], "nothing is ended"
    words = f"capture job {now.id} of capture/now (urgent 10 over low -6)"
    assert asked.beat() == {slow.id: words}
    assert asked.end_a_shard() == [slow.id]
    asked.step()
    assert asked.running() == ["now"]
    after = asked.job("slow")
    assert (after.state, after.reason) == ("pending", "Preempted")
    assert after.message == f"made room for {words}; goes on from its sealed shards"
    assert (after.attempts, after.losses, after.created_at) == (0, 0, slow.created_at)
    assert asked.settle() == ["capture", "capture"]
    assert {record.ready for record in asked.objects()} == {True}
    assert asked.rows()["preemptions"] == []


def test_events_say_who_asked_whom_and_who_made_room(asked):
    slow, now = asked.job("slow"), asked.job("now")
    assert asked.events_of("now", "Preempting") == [
        f"capture job {now.id} (urgent 10) asked capture job {slow.id} of capture/slow (low -6) "
        "to make room after the shard under way"
    ]
    assert asked.events_of("slow", "Preempted") == []
    asked.end_a_shard()
    (said,) = asked.events_of("slow", "Preempted")
    assert said.startswith(f"capture job {slow.id} made room for capture job {now.id} of ")


def test_the_condition_of_who_made_room_says_so_until_it_runs_again(asked):
    asked.end_a_shard()
    asked.step()
    assert asked.reason("slow") == "Preempted"
    assert "made room for capture job" in asked.words()["slow"]
    assert asked.get("slow").stage_word == "Queued"
    asked.workers.complete()
    asked.step_until_running()
    asked.step()
    assert asked.reason("slow") == "JobRunning"


def test_one_look_is_no_evidence(lab):
    lab.ask("now", "urgent")
    lab.step()
    lab.clock.advance(1.0)
    lab.step()
    assert set(lab.beat().values()) == {None}
    lab.clock.advance(1.0)
    lab.step()
    assert set(lab.beat().values()) != {None}


def test_what_is_needed_no_more_is_taken_back(asked):
    asked.delete("now", "Capture")
    asked.look_on(3)
    assert set(asked.beat().values()) == {None} and asked.running() == ["slow"]
    assert asked.settle() == ["capture"]


def test_a_job_that_gives_back_what_nobody_asks_for_any_more_just_waits(asked):
    slow = asked.job("slow")
    with asked.state.database.write() as connection:
        preemptions.withdraw(connection, [slow.id])
        preemptions.make_room(connection, slow, now=asked.clock.now())
    assert (asked.job("slow").state, asked.job("slow").reason) == ("pending", None)


def test_a_job_that_waits_longer_does_not_take_the_room_that_another_one_was_promised(asked):
    for name in ("older", "oldest"):
        asked.ask(name, "normal")
    asked.clock.advance(1e5)
    asked.beat()
    asked.look_on(3)
    asked.end_a_shard()
    asked.step()
    assert asked.running() == ["now"]


def test_who_made_room_keeps_its_place_by_age(asked):
    asked.clock.advance(asked.settings.aging_seconds)
    asked.ask("later", "low")
    asked.end_a_shard()
    asked.step()
    asked.workers.complete()
    asked.step_until_running()
    assert asked.running() == ["slow"]


def test_nobody_asks_back(asked):
    """However long the one waited that made room, the other class is higher."""
    asked.end_a_shard()
    asked.step()
    for _ in range(20):
        asked.clock.advance(1e4)
        asked.beat()
        asked.look_on(3)
        assert asked.end_a_shard() == []
    assert asked.running() == ["now"]


def test_a_restarted_controller_keeps_the_promise(asked):
    asked.restart()
    asked.ask("older", "normal")
    asked.end_a_shard()
    asked.restart()
    asked.step_until_running()
    assert asked.running() == ["now"]


def test_who_found_another_slot_needs_no_room_any_more(tmp_path):
    lab = Lab(tmp_path / "state", slots=2)
    for name in ("one", "two"):
        lab.ask(name, "low")
    lab.step_until_running()
    lab.step()
    lab.ask("now", "urgent")
    lab.look_on(3)
    (asked,) = [job for job, words in lab.beat().items() if words is not None]
    assert asked == lab.job("two").id, "of equals what started last"
    (worker,) = [w for w, (job, _) in lab.workers.assigned.items() if job != asked]
    lab.workers._run(worker)
    lab.step_until_running()
    lab.step()
    assert lab.running() == ["two", "now"] and set(lab.beat().values()) == {None}


def test_a_worker_that_dies_with_a_request_makes_room_by_that(asked):
    asked.workers.die()
    asked.look_on(40)
    assert asked.running() == ["now"]
    assert asked.job("slow").losses == 1


def test_memory_that_ran_out_before_is_not_forgotten_over_it(lab):
    lab.workers.failures["capture"] = ("OutOfMemory", True)
    lab.workers.complete()
    lab.workers.failures.clear()
    lab.clock.advance(60)
    lab.step_until_running()
    lab.ask("now", "urgent")
    lab.look_on(3)
    assert len(lab.end_a_shard()) == 1
    job = lab.job("slow")
    assert (job.state, job.reason, job.attempts) == ("pending", "OutOfMemory", 1)
    assert len(lab.events_of("slow", "Preempted")) == 1


def test_without_a_class_that_preempts_nobody_is_asked(tmp_path):
    lab = Lab(tmp_path / "state", preempting_classes=())
    lab.ask("slow", "low")
    lab.step_until_running()
    lab.ask("now", "urgent")
    lab.look_on(5)
    assert set(lab.beat().values()) == {None}


def test_a_request_ends_with_the_right_to_ask(asked):
    """The limits file took the policy from the last class that had it."""
    asked.settings = replace(asked.settings, preempting_classes=())
    asked.restart()
    asked.step()
    assert set(asked.beat().values()) == {None} and asked.rows()["preemptions"] == []
    assert asked.end_a_shard() == [] and asked.running() == ["slow"]
    assert asked.settle() == ["capture", "capture"]


def test_who_made_room_before_the_right_ended_still_lets_the_other_one_go_first(asked):
    asked.end_a_shard()
    asked.settings = replace(asked.settings, preempting_classes=())
    asked.restart()
    asked.step_until_running()
    assert asked.running() == ["now"] and asked.rows()["preemptions"] == []


# -- fencing ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["token", "ended", "waits no more"])
def test_only_who_runs_is_asked_and_only_for_who_waits(asked, wrong):
    slow, now = asked.job("slow"), asked.job("now")
    token, by = slow.token, now.id
    if wrong == "token":
        token -= 1
    elif wrong == "ended":
        asked.workers.complete()
    else:
        by = slow.id
    before = asked.rows()
    with pytest.raises(Fenced), asked.state.database.write() as connection:
        preemptions.ask(connection, slow.id, token, by, ("a 1", "b 0"), now=1.0)
    assert asked.rows() == before


def test_no_two_that_run_are_asked_for_one(tmp_path):
    lab = Lab(tmp_path / "state", slots=2)
    for name in ("one", "two"):
        lab.ask(name, "low")
    lab.step_until_running()
    lab.step()
    lab.ask("now", "urgent")
    lab.look_on(3)
    one, now, before = lab.job("one"), lab.job("now"), lab.rows()
    with pytest.raises(Fenced, match="already"), lab.state.database.write() as connection:
        preemptions.ask(connection, one.id, one.token, now.id, ("a 1", "b 0"), now=1.0)
    assert lab.rows() == before


def test_who_lost_its_job_makes_no_room(asked):
    slow = asked.job("slow")
    with asked.state.database.write() as connection:
        jobs.release(connection, slow.id, slow.token)
    before = asked.rows()
    with pytest.raises(Fenced), asked.state.database.write() as connection:
        preemptions.make_room(connection, slow, now=1.0)
    assert asked.rows() == before


def test_asking_twice_writes_what_asking_once_does(asked):
    slow, now = asked.job("slow"), asked.job("now")
    before = asked.rows()["preemptions"]
    classes = ("urgent 10", "low -6")
    with asked.state.database.write() as connection:
        preemptions.ask(connection, slow.id, slow.token, now.id, classes, now=before[0][-1])
    assert asked.rows()["preemptions"] == before


# -- what is shown ----------------------------------------------------------------------


def detail(lab, name):
    (row,) = [row for row in queue_table(lab.view()).rows if row[3] == f"capture/{name}"]
    return row[5], row[8]


def test_the_queue_says_who_asked_and_who_makes_room(asked):
    slow, now = asked.job("slow"), asked.job("now")
    _, said = detail(asked, "slow")
    assert f"makes room after this shard for capture job {now.id} of capture/now" in said
    told = f"no worker slot is free; job {slow.id} was asked to make room after a shard"
    assert detail(asked, "now") == ("Slot", told)
    asked.end_a_shard()
    asked.step()
    word, said = detail(asked, "slow")
    assert word == "Preempted" and said.startswith(f"made room for capture job {now.id} of ")


def test_the_document_of_the_queue_has_it_too(asked, loopscope):
    document = json.loads(loopscope("queue", "-o", "json")[1])
    by_object = {one["object"]: one for one in document["jobs"]}
    assert by_object["capture/slow"]["makesRoomFor"].endswith("(urgent 10 over low -6)")
    assert by_object["capture/now"]["makesRoomFor"] is None


def test_why_names_the_other_one_on_both_sides(asked, loopscope):
    slow, now = asked.job("slow"), asked.job("now")
    said = loopscope("why", "capture", "now")[1]
    assert f"job {slow.id} (capture) was asked to make room for it" in said
    said = loopscope("why", "capture", "slow")[1]
    assert "makes room after the shard under way" in said and f"capture job {now.id} of" in said
    asked.end_a_shard()
    asked.step()
    said = loopscope("why", "capture", "slow")[1]
    assert f"it made room for capture job {now.id} of" in said


def test_describe_shows_the_reason_and_the_event(asked, loopscope):
    asked.end_a_shard()
    asked.step()
    said = loopscope("describe", "capture", "slow")[1]
    assert said.count("Preempted") >= 3, "condition, job and event"
    assert "Preempting" in loopscope("describe", "capture", "now")[1]
