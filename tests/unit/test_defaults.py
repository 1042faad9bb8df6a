"""Figures of the manual that no option states are those of the code."""

from pathlib import Path

import pytest
import yaml

from loopscope.controller.jobs.leases import BEATS_PER_LEASE
from loopscope.controller.maintenance.retention import LOOK_SECONDS
from loopscope.controller.reconcile.verification import SHARE
from loopscope.controller.settings import Settings
from loopscope.state.db.objects import CHANGES_KEPT
from loopscope.state.log_files import LOG_BYTES_MAX
from loopscope.state.orders import STOP_GRACE_SECONDS

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
MIB = 2**20
SETTINGS = Settings()
RETRY = SETTINGS.retry


FIGURES = {
    "heartbeat of a job": (
        f"every sixth of its lease: {SETTINGS.lease_seconds / BEATS_PER_LEASE:g} s"
    ),
    "time without progress before a job counts as stuck": (
        f"{SETTINGS.progress_timeout_seconds / 60:g} min"
    ),
    "grace of a worker whose controller is gone, or that gets SIGTERM": f"{STOP_GRACE_SECONDS:g} s",
    "log of a worker": f"{LOG_BYTES_MAX / MIB:g} MiB, and as much of what was before",
    "attempts of a job that fails for a passing reason": (
        f"{RETRY.attempts_max}, after {RETRY.backoff_seconds:g} s \N{MULTIPLICATION SIGN} 2ⁿ, "
        f"at most {RETRY.backoff_seconds_max / 60:g} min"
    ),
    "pause of a job that found the disk full": f"{RETRY.wait_seconds:g} s, as often",
    "losses of a worker, without another sealed shard, before its job is given up": (
        f"{RETRY.losses_max} "
    ),
    "artifact bytes hashed again per resync": (
        f"{SETTINGS.verify_bytes_per_resync / MIB:g} MiB, or what takes half a percent of the time "
        f"between two resyncs ({SETTINGS.resync_seconds * SHARE * 1000:g} ms of "
        f"{SETTINGS.resync_seconds:g} s)"
    ),
    "change log": f"{CHANGES_KEPT:,} rows",
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_setting_without_an_option_is_what_the_manual_says(figure):
    assert f"\n| {figure} | {FIGURES[figure]}" in PAGE


def test_collection_looks_as_often_as_its_page_says():
    page = Path(__file__).parents[2] / "docs/how-to/collect-garbage.md"
    assert LOOK_SECONDS == 10 * 60 and "looks every ten minutes" in page.read_text(encoding="utf-8")


def test_the_limits_without_an_option_and_a_file_are_what_the_manual_says():
    assert (
        f"there are {SETTINGS.job_starts_per_minute} job starts per minute, a burst of\nas" in PAGE
    )
    assert SETTINGS.burst is None and SETTINGS.slots == 1
    start = "jobStartsPerMinute: 60"
    example = yaml.safe_load(start + PAGE.partition(f"```yaml\n{start}")[2].partition("```")[0])
    assert example["priorityClasses"] == SETTINGS.priority_classes
    assert example["agingSeconds"] == SETTINGS.aging_seconds
