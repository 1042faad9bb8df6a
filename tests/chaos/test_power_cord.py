"""What ``make power-cord`` does with the demo, on a tiny experiment with a few pulls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.power_cord import pull_the_cord
from tests.tiny_experiment import make_experiment

pytestmark = pytest.mark.integration


def test_the_same_report_after_the_power_cord_was_pulled(tmp_path: Path) -> None:
    spec = make_experiment(tmp_path / "tiny")
    findings = pull_the_cord(spec.parent, tmp_path / "tiny", tmp_path, pulls=2, seed=3)
    assert findings.violations == []
