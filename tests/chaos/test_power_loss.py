"""What ``make power-loss`` does with the demo, on a tiny experiment with a few losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.power_loss import cut_the_power
from tests.tiny_experiment import make_experiment

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_the_same_report_after_the_power_was_lost(tmp_path: Path) -> None:
    spec = make_experiment(tmp_path / "tiny")
    findings = cut_the_power(spec.parent, tmp_path / "tiny", tmp_path, pulls=2, seed=3)
    assert findings.violations == []
