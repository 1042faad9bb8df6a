from __future__ import annotations

import pytest
import torch

from loopscope.numerics.model.batching import pad, plan_batches


def test_every_sequence_is_in_exactly_one_batch_and_batches_keep_the_budget():
    lengths = [7, 3, 12, 3, 5, 9, 12, 1]
    batches = plan_batches(lengths, tokens_per_batch_max=24)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) * max(lengths[i] for i in b) <= 24 for b in batches)


def test_a_plan_depends_on_lengths_alone_and_breaks_ties_by_index():
    assert plan_batches([2, 1, 2, 1], 4) == [[1, 3], [0, 2]]
    assert plan_batches([2, 1, 2, 1], 4) == plan_batches([2, 1, 2, 1], 4)


def test_a_sequence_longer_than_the_budget_gets_a_batch_of_its_own():
    assert plan_batches([3, 50, 3], 8) == [[0, 2], [1]]


def test_a_plan_may_limit_rows_too():
    assert plan_batches([1] * 5, 100, rows_per_batch_max=2) == [[0, 1], [2, 3], [4]]


def test_an_impossible_budget_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        plan_batches([1], 0)


def test_no_sequences_make_no_batches():
    assert plan_batches([], 8) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_keeps_tokens_mask_and_positions_of_a_single_run(side):
    sequences = [[1, 5, 6, 7], [1, 8]]
    batch = pad(sequences, 0, side)
    for row, sequence in enumerate(sequences):
        real = batch.mask[row]
        assert batch.tokens[row][real].tolist() == sequence
        assert batch.position_ids[row][real].tolist() == list(range(len(sequence)))
        assert (batch.position_ids[row][~real] == 0).all() or side == "right"
    edge = batch.mask[:, -1] if side == "left" else batch.mask[:, 0]
    assert edge.all()


def test_padding_that_equals_a_real_token_is_still_told_apart():
    batch = pad([[2, 2, 2], [2]], 2, "left")
    assert batch.mask.tolist() == [[True, True, True], [False, False, True]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_bos_and_padding_are_outside_of_every_statistic(side):
    batch = pad([[1, 5, 6], [1, 8]], 0, side)
    assert torch.equal(batch.tokens[batch.without_bos], torch.tensor([5, 6, 8]))


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="empty"):
        pad([[1], []], 0, "left")
