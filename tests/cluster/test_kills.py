"""A short dose of the counted kills on PostgreSQL, a bucket and Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.real import PATIENCE_SECONDS, REPOSITORY

pytest.importorskip("psycopg")

from tests.chaos.cluster_kills import Round, recorded, summary

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
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["kills"] == {"worker": 1, "connection": 1, "request": 1, "raylet": 0, "node": 1}
    assert not any(said[name] for name in ("notSettled", "missing", "differing", "doubled"))


def test_a_record_is_gone_on_with_and_what_was_broken_is_counted(tmp_path: Path):
    whole = Round(0, "abc", Counter(worker=2, node=1), 30.0, settled=True, jobs=5, starts=8)
    broken = Round(1, "abc", Counter(worker=1), 60.0, settled=True, jobs=5, starts=6, differing=1)
    record = tmp_path / "kills.jsonl"
    assert recorded(record) == []
    record.write_text(whole.line() + broken.line())
    rounds = recorded(record)
    assert rounds == [whole, broken] and [one.is_clean for one in rounds] == [True, False]
    said = summary(rounds)
    assert said["kills"] == {"worker": 3, "connection": 0, "request": 0, "raylet": 0, "node": 1}
    assert (said["rounds"], said["starts"], said["differing"], said["doubled"]) == (2, 14, 1, 0)
