"""The SLURM script of the examples, with a program in the place of loopscope."""

import pytest

from tests.slurm import SCRIPT, Cluster

RECORDER = """#!/bin/sh
echo "$LOOPSCOPE_STATE $HF_HUB_OFFLINE: $*" >> "$CALLS"
case "$1" in
  run) readlink "$LOOPSCOPE_STATE/artifacts" >> "$CALLS"; exit "$RUN_STATUS" ;;
  *) [ "$1" = "$FAILS" ] && exit 1; for last; do :; done; touch "$last" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path, RECORDER)
    made.environment = {"CALLS": str(tmp_path / "calls"), "RUN_STATUS": "0", "FAILS": ""}
    return made


def calls(cluster):
    lines = (cluster.folder / "calls").read_text().splitlines()
    return [line.partition(": ")[2].split() for line in lines if ": " in line]


def test_a_job_that_is_out_of_time_asks_to_go_on_and_the_next_begins_with_its_snapshot(cluster):
    snapshot = str(cluster.shared / "state.snapshot")
    first = cluster.sbatch("specs/", "--root", ".", RUN_STATUS="75")
    assert (first.status, first.asked_to_go_on) == (75, True), first.log
    (run, save) = calls(cluster)
    assert run[:4] == ["run", "specs/", "--root", "."] and run[4] == "--stop-before"
    assert save == ["backup", "--records-only", snapshot]
    second = cluster.sbatch("specs/")
    assert (second.status, second.asked_to_go_on) == (0, False), second.log
    assert [words[0] for words in calls(cluster)[2:]] == ["restore", "run", "backup"]
    for number in range(2):
        assert list(cluster.node(number).iterdir()) == [], "nothing is left on a node"


def test_state_is_on_the_node_artifacts_are_shared_and_the_hub_is_off(cluster):
    cluster.sbatch("specs/")
    first, link, *_ = (cluster.folder / "calls").read_text().splitlines()
    assert first.startswith(f"{cluster.node(0)}/loopscope-7/state 1: run")
    assert link == str(cluster.shared / "artifacts")


def test_time_to_save_is_kept_before_the_limit(cluster):
    cluster.sbatch("specs/", LOOPSCOPE_SECONDS_TO_SAVE="100", SLURM_JOB_END_TIME="1000000")
    assert calls(cluster)[0] == ["run", "specs/", "--stop-before", "@999900"]


@pytest.mark.parametrize("status", ["1", "2", "3"])
def test_what_needs_a_human_is_not_queued_again(cluster, status):
    job = cluster.sbatch("specs/", RUN_STATUS=status)
    assert (job.status, job.asked_to_go_on) == (int(status), False)
    assert calls(cluster)[-1][0] == "backup"


def test_without_its_snapshot_a_job_does_not_begin_and_does_not_ask_to_go_on(cluster):
    cluster.sbatch("specs/", RUN_STATUS="75")
    for fails, last in (("restore", "restore"), ("backup", "backup")):
        job = cluster.sbatch("specs/", RUN_STATUS="75", FAILS=fails)
        assert (job.status, job.asked_to_go_on) == (1, False)
        assert calls(cluster)[-1][0] == last


def test_a_shared_folder_must_be_named(cluster):
    job = cluster.sbatch("specs/", LOOPSCOPE_SHARED="")
    assert job.status == 1 and "name a folder that all nodes see" in job.log


def test_its_options_are_those_that_it_rests_on():
    text = SCRIPT.read_text()
    assert "#SBATCH --requeue" in text and "#SBATCH --dependency=singleton" in text
