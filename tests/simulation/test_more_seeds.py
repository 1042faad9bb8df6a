"""Another 250 seeds, in a file of their own so that two processes share the work."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import assert_all_hold, handfuls


@pytest.mark.parametrize("seeds", handfuls(250, 250), ids=str)
def test_every_invariant_holds_after_every_step(seeds):
    assert_all_hold(seeds)
