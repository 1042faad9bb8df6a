"""The words of a verdict at the very levels of their p."""

import pytest

from loopscope.numerics.verdict.words import (
    LEVEL_EQUIVALENCE,
    LEVEL_ONE_SIDED,
    WordP,
    either,
    word_of,
)


@pytest.mark.parametrize(
    ("p", "word"),
    [
        (WordP(LEVEL_ONE_SIDED, 1.0, 1.0), "Supported"),
        (WordP(LEVEL_ONE_SIDED * 1.001, 1.0, 1.0), "Inconclusive"),
        (WordP(1.0, LEVEL_ONE_SIDED, 1.0), "Refuted"),
        (WordP(1.0, LEVEL_ONE_SIDED * 1.001, 1.0), "Inconclusive"),
        (WordP(1.0, 1.0, LEVEL_EQUIVALENCE), "NoPracticalDifference"),
        (WordP(1.0, 1.0, LEVEL_EQUIVALENCE * 1.001), "Inconclusive"),
        (WordP(0.0, 0.0, 0.0), "Supported"),
        (WordP(1.0, 0.0, 0.0), "Refuted"),
    ],
)
def test_a_word_holds_at_its_level_and_not_above(p, word):
    assert word_of(p) == word


def test_the_p_of_either_of_two_is_twice_the_smaller_one_and_at_most_one():
    assert either([0.01, 0.5]) == pytest.approx(0.02)
    assert either([0.9, 0.7]) == 1.0
