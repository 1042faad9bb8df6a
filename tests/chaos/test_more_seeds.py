"""The seeds from 150 to 500, beside those of ``tests/simulation/test_seeds.py``."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import assert_all_hold, handfuls


@pytest.mark.long
@pytest.mark.parametrize("seeds", handfuls(150, 350), ids=str)
def test_every_invariant_holds_after_every_step(seeds):
    assert_all_hold(seeds)
