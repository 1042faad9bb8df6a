"""The rules by which the independent check counts near ties apart excuse nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from loopscope.numerics.statistics.sampling import SamplingRule
from tests.acceptance.independent import NEAR, Choice, Resolution, children, keep_largest, readings
from tests.acceptance.independent_steering import choose
from tests.drawn import assert_drawn_alike

RULE = {"topK": 3, "temperature": 0.5}
SLACK = 1e-3


def resolution(pre, k: int) -> Resolution:
    pre = np.array(pre, dtype=np.float64)
    slack = np.full(pre.shape, SLACK)
    return Resolution(
        **keep_largest(pre, slack, k), decoder=np.eye(1), norm=np.ones(1), pre=pre, slack=slack
    )


ROW = [400.4257, 400.4245, 900.0, 380.0]  # two kept: the third and one of the first two


def test_only_what_lies_within_the_slack_of_the_edge_is_near():
    assert resolution([ROW], 2).near.tolist() == [[True, True, False, False]]
    assert not resolution([[400.43, 400.42, 900.0, 380.0]], 2).near.any()
    assert resolution([[5.0, 0.0005, -0.0005, -1.0]], 3).near.tolist() == [
        [False, True, True, False]
    ]


def test_a_near_tie_may_go_either_way_and_the_tables_follow_what_was_found():
    own = resolution([ROW], 2)
    assert own.settled(own.activations).activations.tolist() == own.activations.tolist()
    other = own.settled(np.array([[0.0, 400.4246, 900.0, 0.0]]))
    assert other.activations.tolist() == [[0.0, 400.4245, 900.0, 0.0]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([0.0, 0.0, 900.0, 380.0], "one computation only"),  # a clear loser is kept
        ([400.4257, 400.4245, 0.0, 0.0], "one computation only"),  # a clear winner is left out
        ([400.4257, 400.4245, 900.0, 0.0], "trades one for another"),  # both of a tie
        ([0.0, 0.0, 900.0, 0.0], "trades one for another"),  # neither
        ([0.0, 400.4345, 900.0, 0.0], "activations differ"),  # ten times the slack
        ([400.4257, 0.0, 900.01, 0.0], "activations differ"),
    ],
)
def test_a_fault_is_not_excused_as_a_near_tie(found, message):
    with pytest.raises(AssertionError, match=message):
        resolution([ROW], 2).settled(np.array([found]))


def test_what_passes_by_rounding_may_be_chosen_or_not_and_nothing_else_may_change():
    choice = Choice({0, 1}, {0, 1, 2}, np.array([0.9, 0.5, 0.7, 0.8]), top=2)
    assert choice.admits([0, 1])
    assert choice.admits([0, 2]), "2 may pass, and then it is better than 1"
    assert not choice.admits([0]), "1 surely passes and there is room"
    assert not choice.admits([1, 0]), "the better one comes first"
    assert not choice.admits([0, 3]), "3 does not pass"
    assert not choice.admits([0, 2, 1]), "two at most"
    even = Choice({0, 1}, {0, 1}, np.array([0.9, 0.9 + NEAR / 2]), top=1)
    assert even.admits([0])
    assert even.admits([1])


def test_a_cosine_on_the_threshold_is_a_child_or_not():
    surely, possibly = children(np.array([[0.3001, 0.3 + 1e-7, 0.3 - 1e-7, 0.2999]]), 0.3)
    assert surely.tolist() == [[True, False, False, False]]
    assert possibly.tolist() == [[True, True, True, False]]


def test_a_pair_on_a_threshold_has_two_readings():
    rules = {"minCosine": 0.3, "minCorrelation": 0.2}
    assert readings(0.5, 0.5, rules) == {"match"}
    assert readings(0.3, 0.5, rules) == {"match", "partial"}
    assert readings(0.5, 0.2, rules) == {"match", "geometric-only"}
    assert readings(0.5, float("nan"), rules) == {"unobserved"}


LOGITS = np.array([0.0, 2.0, 1.0, -1.0])
SHARE = 1 / (1 + np.exp(-2) + np.exp(-4))  # of token 1, of the three likeliest


def test_a_draw_inside_a_token_has_one_answer():
    assert choose(LOGITS, SHARE / 2, RULE).possibly == {1}
    assert choose(LOGITS, SHARE + 0.01, RULE).possibly == {2}
    assert choose(LOGITS, 1 - 1e-9, RULE).possibly == {0}


def test_a_draw_on_the_boundary_between_two_tokens_has_two():
    for step in (-1e-7, 1e-7):
        assert choose(LOGITS, SHARE + step, RULE).possibly == {1, 2}
    assert choose(LOGITS, SHARE - 1e-7, RULE).token == 1
    assert choose(LOGITS, SHARE + 1e-7, RULE).token == 2


def test_tokens_of_nearly_equal_logits_may_change_places_also_at_the_edge_of_top_k():
    level = np.array([1.0, 2.0, 1.0 + 1e-7, 1.0 - 1e-7, 0.0])
    found = choose(level, SHARE + 0.01, RULE)
    assert found.token == 2
    assert found.possibly == {0, 2, 3}


def after(row, tokens):
    return LOGITS


def test_texts_may_part_where_a_draw_lies_on_a_boundary_and_nowhere_else():
    rule = SamplingRule(temperature=0.5, top_k=3)
    draws = [[SHARE / 2, SHARE, SHARE / 2]]
    assert_drawn_alike([[1, 1, 1]], [[1, 2, 0]], after, draws, rule)
    with pytest.raises(AssertionError, match="row 0, token 0: 2 and 1"):
        assert_drawn_alike([[2, 1, 1]], [[1, 1, 1]], after, draws, rule)
    with pytest.raises(AssertionError, match="row 0, token 1: 0 and 1"):
        assert_drawn_alike([[1, 0, 1]], [[1, 1, 1]], after, draws, rule)
    with pytest.raises(AssertionError, match="ends after 2, 3"):
        assert_drawn_alike([[1, 1]], [[1, 1, 1]], after, draws, rule)
    with pytest.raises(AssertionError, match="row 0, token 0: 2 and 1"):
        assert_drawn_alike([[2]], [[1]], after, [], SamplingRule(greedy=True))
