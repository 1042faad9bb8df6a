"""A short dose of the counted kills on PostgreSQL, a bucket and Ray."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.real import PATIENCE_SECONDS, REPOSITORY

pytest.importorskip("psycopg")

from tests.chaos.cluster_kills import (
    BEGIN,
    END,
    Round,
    by_commit,
    published,
    recorded,
    sealed_again,
    table,
    totals,
)
from tests.s3_proxy import Done

FEW = ("--workers", "1", "--connections", "1", "--requests", "1", "--raylets", "0", "--nodes", "1")


def test_a_few_kills_of_each_kind_cost_nothing_that_was_promised(
    postgres, localbucket, tmp_path: Path
):
    """The command has servers and a cluster of its own; the fixtures tell whether there can be."""
    if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
        pytest.skip("no Ray here; `make test-cluster` installs it")
    record = tmp_path / "kills.jsonl"
    command = (sys.executable, "-m", "tests.chaos.cluster_kills", *FEW, "--record", str(record))
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True,
        timeout=4 * PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = recorded(record)
    kills = sum((one.kills for one in rounds), Counter())
    assert kills == Counter(worker=1, connection=1, request=1, node=1)
    assert [one.broken for one in rounds] == [0] * len(rounds)


def test_a_record_is_gone_on_with_and_what_was_broken_is_counted(tmp_path: Path):
    whole = Round(0, "abc", Counter(worker=2, node=1), settled=True, jobs=5, starts=8)
    whole.noticed_seconds = {"worker": [0.2, 0.4], "node": [2.0]}
    broken = Round(1, "abc", Counter(worker=1), settled=True, jobs=5, starts=6, differing=1)
    record = tmp_path / "kills.jsonl"
    assert recorded(record) == []
    record.write_text(whole.line() + broken.line())
    rounds = recorded(record)
    assert rounds == [whole, broken] and [one.broken for one in rounds] == [0, 1]
    said = totals(rounds)
    assert (said["kills"], said["starts"], said["differing"], said["doubled"]) == (4, 14, 1, 0)
    assert "| worker | 3 | 400 | 0.3, 0.2, 0.4 s |" in table(rounds)


def test_the_table_says_which_kills_were_made_at_which_commit():
    old = Round(0, "abc", Counter(worker=2, node=1), load=3.0, settled=True)
    new = Round(1, "def", Counter(worker=4), load=9.0, settled=True, differing=1)
    more = Round(2, "abc", Counter(request=1), load=5.0, settled=True)
    assert by_commit([old, new, more]).splitlines()[2:] == [
        "| abc | 2 | 2 | 0 | 1 | 0 | 1 | 4 | 0 | 3 to 5 |",
        "| def | 1 | 4 | 0 | 0 | 0 | 0 | 4 | 1 | 9 to 9 |",
    ]


def test_what_did_not_settle_or_fsck_finds_breaks_a_promise():
    assert Round(0, "abc").broken == 1
    assert Round(0, "abc", settled=True, findings=["Missing capture: …"]).broken == 1


def test_a_shard_is_made_again_only_by_a_job_that_began_after_it_was_sealed():
    first = Done("PUT", "/bucket/a/shards/d/rows-0/aaaa", 10.0)
    second = Done("PUT", "/bucket/a/shards/d/rows-0/bbbb", 20.0)
    other = Done("PUT", "/bucket/a/shards/d/rows-1/cccc", 21.0)
    assert sealed_again([first, second, other], [("d", 5.0), ("d", 15.0), ("e", 12.0)]) == 1
    assert sealed_again([first, second, other], [("d", 5.0), ("d", 9.0), ("e", 12.0)]) == 0
    thrown_away = Done("PUT", "/bucket/a/trash/shards/d/rows-0/aaaa", 20.0)
    assert sealed_again([first, thrown_away], [("d", 5.0), ("d", 15.0)]) == 0


def test_the_table_is_written_into_the_section_of_the_page_and_nowhere_else():
    whole = Round(0, "abc", Counter(worker=2), settled=True, jobs=5, starts=8)
    page = published(f"before\n{BEGIN}\nold\n{END}\nafter\n", [whole])
    assert page.startswith(f"before\n{BEGIN}\n| killed") and page.endswith(f"{END}\nafter\n")
    assert "old" not in page and "| worker | 2 | 400 |" in page and "Not settled: 0" in page
    assert published(page, [whole]) == page
    with pytest.raises(ValueError, match="no section"):
        published("a page", [whole])
