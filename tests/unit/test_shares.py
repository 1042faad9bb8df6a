"""Several workers at one capture: the bytes of one, and nothing rests on any of the others."""

import itertools
from dataclasses import replace

import pytest

from loopscope.controller.jobs.scheduling import PendingJob, Place, RunningJob
from loopscope.controller.jobs.sharing import changes
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import JobStopped
from loopscope.state.share import Share
from loopscope.worker.shards import Shards
from loopscope.worker.stages.capture import forward_passes, sharing
from loopscope.worker.stages.capture import stage as capture
from tests.stage_world import capture_payload, contents
from tests.unit.test_controller_scheduling import SLOT, job, snapshot, started, waits

WRITE = "blocks.1.hook_mlp_out"
AVX2, CARD = "AVX2-torch", "H200-torch"


def a_share(number=1, count=1, of_job=1, maker=AVX2, **more):
    return Share(of_job + number, of_job, number, count, maker, "digest", **more)


@pytest.mark.parametrize(("total", "count"), itertools.product([0, 1, 2, 7, 24], [1, 2, 3, 30]))
def test_the_shares_of_a_job_hold_each_shard_once_and_the_last_ones_first(total, count):
    each = [list(a_share(number, count).shards(total)) for number in range(1, count + 1)]
    assert sorted(itertools.chain(*each)) == list(range(total))
    assert all(one == sorted(one, reverse=True) for one in each)


# -- the work ----------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch):
    """Let every few prompts be a shard; return the names of the hooks of each pass."""
    monkeypatch.setattr(capture, "TOKENS_PER_BATCH_MAX", 12)
    monkeypatch.setattr(capture, "BATCHES_PER_SHARD", 1)
    passes, real = [], forward_passes.residuals_at_hooks

    def counted(model, hooks, batch):
        passes.append(hooks)
        return real(model, hooks, batch)

    monkeypatch.setattr(forward_passes, "residuals_at_hooks", counted)
    return passes


def share(world, payload, one, stop_after=None):
    """Work on a share of the capture whose shards are called ``shared``."""
    world.calls, world.stop_at = [], stop_after
    try:
        sharing.run(payload, replace(world.context("shared"), share=one))
    except JobStopped:
        assert stop_after is not None
    world.stop_at = None


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("more", [{}, {"writeHook": WRITE}], ids=["read", "read and write"])
def test_a_capture_whose_shards_others_made_has_the_bytes_of_one_worker(
    world, small_shards, count, more
):
    payload = capture_payload(**more)
    alone = contents(world.run(capture, payload, "alone", "alone")[0])
    for number in range(1, count + 1):
        share(world, payload, a_share(number, count))
    made = len(small_shards)
    assert contents(world.run(capture, payload, "together", "shared")[0]) == alone
    assert len(small_shards) == made, "it made a shard that was there"


@pytest.mark.parametrize("stop_after", [3, 5])
def test_what_a_share_that_died_left_open_its_capture_makes(world, small_shards, stop_after):
    payload = capture_payload()
    alone = contents(world.run(capture, payload, "alone", "alone")[0])
    needed = len(small_shards)
    share(world, payload, a_share(), stop_after)
    assert needed < len(small_shards) < 2 * needed, "it was to die halfway"
    assert contents(world.run(capture, payload, "together", "shared")[0]) == alone


def test_a_share_goes_on_behind_what_was_sealed(world, small_shards):
    payload = capture_payload()
    share(world, payload, a_share())
    made = len(small_shards)
    share(world, payload, a_share())
    assert len(small_shards) == made


def test_a_shard_of_a_worker_that_lost_its_job_is_not_kept(tmp_path):
    def taken():
        raise JobStopped("taken away")

    shards = Shards(ShardFolder(tmp_path / "digest"), before_seal=taken)
    assert shards.sealed("one") is None
    with pytest.raises(JobStopped):
        shards.seal("one", lambda path: path.write_text("late"))
    assert ShardFolder(tmp_path / "digest").names() == []


# -- who gets shares ----------------------------------------------------------------------


def running(**changes):
    return RunningJob(1, "cpu", token=5, **{"maker": AVX2, "parallelism": 3, **changes})


def wanted(**changes):
    return list(changes_of(running(**changes)))


def changes_of(*run):
    return changes(snapshot(running=run))


def test_a_job_gets_a_share_for_each_worker_beside_its_own():
    (one,) = wanted()
    assert [(new.of_job, new.number, new.count, new.maker) for new in one.new] == [
        (1, 1, 2, AVX2),
        (1, 2, 2, AVX2),
    ]


def test_a_job_gets_shares_once_whatever_became_of_them():
    assert wanted(shares=(a_share(has_ended=True),)) == []


def test_nobody_shares_with_a_worker_of_unknown_kind_or_where_one_is_enough():
    assert wanted(maker=None) == [] and wanted(parallelism=1) == []


def test_a_job_that_began_anew_on_another_kind_ends_the_former_shares_and_then_gets_its_own():
    (one,) = wanted(maker=CARD, shares=(a_share(),))
    assert one.end_former and one.new == ()
    (one,) = wanted(maker=CARD, shares=(a_share(has_ended=True),))
    assert not one.end_former and {new.maker for new in one.new} == {CARD}


# -- where they run -----------------------------------------------------------------------


IDLE = (Place("cpu", "processor"), Place("cuda", "card"))
KINDS = {"processor": AVX2, "card": CARD}


def test_a_share_starts_on_a_worker_of_the_kind_that_began():
    queue = snapshot(job(1, maker=CARD, is_share=True), places=IDLE, makers=KINDS)
    assert started(queue) == 1
    assert waits(replace(queue, places=IDLE[:1])) == {1: "Kind"}


def test_a_share_may_start_where_no_kind_is_known_yet():
    assert started(snapshot(job(1, maker=CARD, is_share=True), places=(SLOT,), makers=KINDS)) == 1


def test_a_capture_with_shards_waits_for_its_kind_while_there_is_a_worker_of_it():
    """Else it would begin anew, with a half of it done."""
    queue = snapshot(job(1, maker=CARD), places=IDLE[:1], makers=KINDS)
    assert waits(queue) == {1: "Kind"}
    assert started(replace(queue, makers={"processor": AVX2})) == 1, "none is left"


def test_a_capture_without_shares_starts_on_any_kind():
    assert started(snapshot(PendingJob(1, 0.0, 0.0), places=IDLE[:1], makers=KINDS)) == 1
