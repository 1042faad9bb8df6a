"""Every planted defect is noticed by the seed that is said to notice it."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import CAUGHT, MUTATIONS, NOT_CAUGHT
from tests.simulation.play import play, prepare


@pytest.fixture(scope="module", autouse=True)
def healthy_folders():
    prepare()


@pytest.mark.parametrize(("name", "seed"), CAUGHT.items(), ids=str)
def test_a_planted_defect_is_noticed(name, seed):
    with MUTATIONS[name].planted():
        broken = play(seed).broken
    assert broken, f"seed {seed} does not notice the loss of {MUTATIONS[name].takes_away} any more"


def test_every_mutation_is_caught_or_explained():
    assert CAUGHT.keys() | NOT_CAUGHT.keys() == MUTATIONS.keys()
    assert not CAUGHT.keys() & NOT_CAUGHT.keys()
    assert len(CAUGHT) >= 16
