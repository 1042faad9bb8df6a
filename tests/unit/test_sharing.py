"""Shares in the loop: queued beside a capture that runs, ended with it, shown where one looks."""

import json

import pytest

from loopscope.controller.jobs.queue_view import read_view
from loopscope.controller.jobs.scheduling import schedule
from loopscope.reports.tables.queue import queue_table
from loopscope.specs.keys import PARALLELISM_ANNOTATION, Key
from loopscope.state.db import jobs, leader, objects, shares
from tests.simulated import Simulation, capture_spec

KIND = "AVX2-torch"
CARD = "H200-torch"


class Lab(Simulation):
    """One capture, and workers of which a test says what they do."""

    def __init__(self, path, slots=3, annotation="3", **settings):
        usual = {"slots_by_device": {"cpu": slots}, **settings}
        super().__init__(path, slots=slots, **usual)
        key = Key("Capture", "default", "cap")
        how = {PARALLELISM_ANNOTATION: annotation} if annotation else {}
        with self.state.database.write() as connection:
            objects.apply(connection, key, capture_spec(), now=self.clock.now(), annotations=how)
        self.step_until_running()

    @property
    def whole(self):
        return self.jobs()[0]

    def others(self):
        return [job for job in self.jobs()[1:] if job.stage == "capture"]

    def note_kind(self, kind=KIND):
        """Let the worker of the capture say of which kind it is."""
        with self.state.database.write() as connection:
            shares.note_maker(connection, self.whole.worker, kind)

    def complete_shares(self):
        """Let the workers of shares work to their end."""
        for worker, (job_id, _) in list(self.workers.assigned.items()):
            if job_id != self.whole.id:
                self.workers._run(worker)

    def view(self):
        with self.state.database.read() as connection:
            return read_view(
                connection, self.state.path, self.settings, self.clock.now(), ended=True
            )


@pytest.fixture
def shared(tmp_path):
    """A capture that runs with two shares, each on a slot."""
    lab = Lab(tmp_path / "state")
    lab.note_kind()
    lab.look_on(3)
    return lab


def test_a_capture_gets_its_shares_once_it_is_known_where_it_runs(tmp_path):
    lab = Lab(tmp_path / "state")
    lab.look_on(3)
    assert lab.others() == [], "of no kind yet"
    lab.note_kind()
    lab.look_on(3)
    assert [job.state for job in lab.others()] == ["running", "running"]
    lab.look_on(3)
    assert len(lab.others()) == 2, "and no more"


def test_there_are_no_more_shares_than_slots_beside_its_own(tmp_path):
    lab = Lab(tmp_path / "state", slots=2, annotation="64")
    lab.note_kind()
    lab.look_on(3)
    assert len(lab.others()) == 1


@pytest.mark.parametrize(
    ("annotation", "setting", "count"), [(None, 3, 2), ("1", 3, 0), ("2", 3, 1), (None, 1, 0)]
)
def test_the_annotation_goes_before_the_file(tmp_path, annotation, setting, count):
    lab = Lab(tmp_path / "state", annotation=annotation, stage_parallelism={"capture": setting})
    lab.note_kind()
    lab.look_on(3)
    assert len(lab.others()) == count


def test_the_artifact_is_the_one_of_a_capture_that_nobody_shared(shared, tmp_path):
    shared.complete_shares()
    shared.settle()
    alone = Lab(tmp_path / "alone", annotation=None)
    alone.settle()
    ours, theirs = shared.get("cap", "Capture"), alone.get("cap", "Capture")
    assert ours.ready and ours.status.artifact == theirs.status.artifact
    assert [job.state for job in shared.jobs()] == ["succeeded"] * 3
    assert {job.stage for job in alone.jobs()} == {"capture"} and len(alone.jobs()) == 1


def test_what_is_left_of_the_shares_ends_with_their_capture(shared):
    worker = next(w for w, (job, _) in shared.workers.assigned.items() if job == shared.whole.id)
    shared.workers._run(worker)
    assert [job.state for job in shared.others()] == ["cancelled", "cancelled"]
    shared.settle()
    assert shared.get("cap", "Capture").ready


def test_the_shares_of_a_capture_that_nobody_wants_end(shared):
    shared.delete("cap", "Capture")
    shared.look_on(3)
    assert {job.state for job in shared.jobs()} == {"cancelled"}


def test_a_share_that_fails_leaves_its_shards_to_the_capture(shared):
    shared.workers.failures["capture"] = ("NotFinite", False)
    shared.complete_shares()
    shared.workers.failures.clear()
    shared.settle()
    assert [job.state for job in shared.others()] == ["failed", "failed"]
    assert shared.get("cap", "Capture").ready


def test_shares_of_a_dead_worker_are_taken_back_and_go_on(shared):
    first = shared.others()[0]
    shared.workers.dead.add(first.worker)
    shared.workers.models.pop(first.worker)
    shared.workers.assigned.pop(first.worker)
    shared.look_on(5)
    again = next(job for job in shared.jobs() if job.id == first.id)
    assert again.state == "running" and again.token > first.token and again.losses == 1
    with pytest.raises(jobs.Fenced), shared.state.database.write() as connection:
        jobs.succeed(connection, first.id, first.token, now=shared.clock.now())


def test_shares_go_on_while_their_capture_looks_for_another_worker(shared):
    shared.workers.dead.add(shared.whole.worker)
    shared.workers.models.pop(shared.whole.worker)
    shared.workers.assigned.pop(shared.whole.worker)
    shared.look_on(2)
    assert [job.state for job in shared.others()] == ["running", "running"]
    shared.settle()
    assert shared.get("cap", "Capture").ready


def test_a_worker_of_another_kind_gives_a_share_back_and_is_not_asked_again(shared):
    share = shared.others()[0]
    with shared.state.database.write() as connection:
        shares.note_maker(connection, share.worker, CARD)
        until = shared.clock.now() + 1
        jobs.postpone(connection, share.id, share.token, "OtherKind", "its kind", until=until)
    shared.workers.assigned.pop(share.worker)
    shared.look_on(5)
    with shared.state.database.read() as connection:
        queue = shared.controller.starter.queue(connection)
    (wait,) = [one.wait for one in schedule(queue) if one.job_id == share.id]
    assert wait.reason == "Kind" and KIND in wait.message


def test_a_capture_that_begins_anew_on_another_kind_gets_shares_of_that(shared):
    former = shared.others()
    shared.note_kind(CARD)
    shared.look_on(4)
    assert {job.state for job in shared.jobs() if job.id in {one.id for one in former}} == {
        "cancelled"
    }
    with shared.state.database.read() as connection:
        now = [one for one in shares.of_job(connection, shared.whole.id) if not one.has_ended]
    assert [one.maker for one in now] == [CARD, CARD]


def test_a_share_starts_with_the_present_way_to_the_model(tmp_path):
    lab = Lab(tmp_path / "state", slots=2, annotation="2")
    lab.note_kind()
    lab.look_on(3)
    (share,) = lab.others()
    assert share.payload == lab.whole.payload and share.digest != lab.whole.digest


def test_the_queue_says_which_share_of_which_job_it_is(shared):
    details = [row[-1] for row in queue_table(shared.view()).rows]
    words = [f"share {number} of 2 of job {shared.whole.id}; " for number in (1, 2)]
    assert [detail[: len(words[0])] for detail in details[1:]] == words


def test_why_and_describe_name_the_shares(shared, loopscope, tmp_path):
    ids = [job.id for job in shared.others()]
    code, out, _ = loopscope("why", "capture", "cap", "-o", "json")
    assert code == 0 and [one["id"] for one in json.loads(out)["chain"][0]["shares"]] == ids
    code, out, _ = loopscope("why", "capture", "cap")
    assert all(f"by job {number} " in out for number in ids)
    code, out, _ = loopscope("describe", "capture", "cap")
    assert code == 0 and f"share 2 of 2 of job {shared.whole.id}" in out
    code, out, _ = loopscope("queue", "-o", "json")
    assert [one["shareOf"] for one in json.loads(out)["jobs"]][1:] == [shared.whole.id] * 2


def test_nothing_is_written_while_nothing_changes(shared):
    before = shared.rows()
    shared.look_on(3)
    assert shared.rows() == before


def test_a_new_controller_finds_the_shares_of_the_one_before(shared):
    with shared.state.database.write() as connection:
        leader.announce(connection, "2@1.00", {}, now=shared.clock.now())
    shared.workers.stop()
    shared.restart()
    shared.settle()
    assert shared.get("cap", "Capture").ready
