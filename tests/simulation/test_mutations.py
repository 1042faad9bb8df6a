"""Every planted defect is noticed by the seeds that are said to notice it."""

from __future__ import annotations

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.play import play, prepare

CAUGHT = [mutation for mutation in MUTATIONS if mutation.caught_by]


@pytest.fixture(scope="module", autouse=True)
def healthy_folders():
    prepare()


@pytest.mark.parametrize("mutation", CAUGHT, ids=lambda mutation: mutation.name)
def test_a_planted_defect_is_noticed(mutation):
    with mutation.planted():
        broken = [play(seed).broken for seed in mutation.caught_by]
    assert any(broken), (
        f"seeds {mutation.caught_by} did not notice the loss of {mutation.takes_away}"
    )


def test_every_mutation_is_caught_or_explained():
    assert [m.name for m in MUTATIONS if bool(m.caught_by) == bool(m.why_not)] == []
    assert len(CAUGHT) >= 16
