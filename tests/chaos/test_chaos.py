"""Two minutes of what ``make chaos`` does for longer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.chaos.chaos import live_through

pytestmark = [pytest.mark.integration, pytest.mark.long]

SECONDS = 120.0
KILLS_MIN = 10
"""What a crowded machine still reaches; a free one counts more than a hundred."""


def test_processes_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "20261122"))
    verdict = live_through(tmp_path, seed, sys.maxsize, SECONDS)
    sys.stdout.write(f"{verdict}\n")
    assert verdict.violations == []
    assert sum(verdict.kills.values()) >= KILLS_MIN
