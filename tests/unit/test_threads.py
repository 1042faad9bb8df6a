"""One thread and two give the same numbers to float32's rounding, and the same choices but ties.

Shapes are large enough for the library to split them. Equal bytes are promised for one number of
threads only, which manifests record.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.architectures import dictionary_of
from loopscope.numerics.dictionaries.sparse import block_shape, encode
from loopscope.numerics.gate.controls import drawn_row_counts
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.neighbours import COSINE_FLOOR, neighbours_of
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.model.logits import LargestLogits, Rough
from loopscope.numerics.model.packing import Packed, packed_layers
from loopscope.numerics.statistics.sampling import SamplingRule, uniforms
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.reading import Continuation, read_kept, reading_of
from tests.drawn import adding, assert_drawn_alike, next_logits

ROWS, WIDTH, LATENTS = 256, 192, 4_096
RELATIVE = 1e-5
"""Of the largest number: 192 products in float32 in another order differ by some 1e-7 of it."""


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def with_threads(compute):
    """Return what ``compute`` returns with one thread, and with two."""
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.get_num_threads() == count
        found.append(compute())
    return found


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_activations_do_not_depend_on_threads(architecture):
    tensors = {
        "w_enc": normal(0, WIDTH, LATENTS), "b_enc": normal(1, LATENTS),
        "w_dec": normal(2, LATENTS, WIDTH), "b_dec": normal(3, WIDTH),
        "threshold": torch.full((LATENTS,), 20.0),
    }  # fmt: skip
    settings = {"k": 32} if architecture == "topk" else {}
    dictionary = dictionary_of(architecture, tensors, settings, apply_b_dec_to_input=True)
    x = normal(4, ROWS, WIDTH)
    shape = block_shape(ROWS, LATENTS)
    one, two = (each.toarray() for each in with_threads(lambda: encode(dictionary, x, *shape)))
    largest = np.abs(one).max()
    same = (one > 0) == (two > 0)
    assert (~same).sum() <= 2, "a latent within rounding of its edge may go either way"
    np.testing.assert_allclose(one[same], two[same], atol=RELATIVE * largest)


def test_neighbours_do_not_depend_on_threads():
    coarse, fine = normal(0, 64, WIDTH), normal(1, LATENTS, WIDTH)
    fine[:64] += coarse
    one, two = with_threads(lambda: neighbours_of(coarse, fine, 1_024))
    for row in range(len(coarse)):
        (ours, cosine), (theirs, other) = one.of(row), two.of(row)
        pairs, others = dict(zip(ours, cosine, strict=True)), dict(zip(theirs, other, strict=True))
        for latent in pairs.keys() ^ others.keys():
            known = pairs.get(latent, others.get(latent))
            assert known == pytest.approx(COSINE_FLOOR, abs=RELATIVE)
        for latent in pairs.keys() & others.keys():
            assert pairs[latent] == pytest.approx(others[latent], abs=RELATIVE)
    moved = np.abs(one.histogram.astype(int) - two.histogram).sum()
    assert moved <= one.histogram.sum() // 10_000, "a cosine at a border may fall on either side"


def test_the_counts_of_drawn_dictionaries_are_the_same_with_any_number_of_threads():
    rows, allowed = normal(0, 3, 24), np.random.default_rng(0).random((3, LATENTS)) < 0.5
    law = RowLaw.of_decoder(normal(1, LATENTS, 24))
    one, two = with_threads(lambda: drawn_row_counts(rows, allowed, law, 0.3, ("t", 0)))
    assert one.tolist() == two.tolist() and one.max() > 0


def test_drawing_dictionaries_ends_at_once_where_its_progress_is_stopped():
    rows, allowed = normal(0, 3, 24), np.ones((3, LATENTS), dtype=bool)
    law, seen = RowLaw.of_decoder(normal(1, LATENTS, 24)), []

    def stop(number):
        seen.append(number)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        drawn_row_counts(rows, allowed, law, 0.3, ("t", 0), on_draw=stop)
    assert seen == [0]


def test_packed_products_do_not_depend_on_threads():
    matrix, rows = normal(0, LATENTS, WIDTH), normal(1, ROWS, WIDTH)
    one, two = with_threads(lambda: Packed(matrix).product(rows))
    torch.testing.assert_close(one, two, rtol=0, atol=RELATIVE * float(one.abs().max()))


def test_what_a_text_reads_as_does_not_depend_on_threads(any_model):
    place, steps = HookPlace(1, "resid_post"), 6
    openings = [any_model.encode(text) for text in ("a child", "the old house near the sea")]
    draws = torch.stack([torch.from_numpy(uniforms(n, "r", 0, steps)) for n in range(2)])
    found = generate(
        any_model.causal, place, openings, Intervention(normal(2, 2, any_model.d_model)), draws,
        SamplingRule(0.9, 20), eos_tokens=frozenset(), pad_token=any_model.pad_token, keep=[place],
    )  # fmt: skip
    texts = [Continuation(row, tuple(tokens)) for row, tokens in enumerate(found.tokens)]

    def read():
        kept = read_kept(any_model.causal, found.kept, [0, 1], texts, [place])
        return reading_of(any_model.causal, [kept], [place])

    one, two = with_threads(read)
    torch.testing.assert_close(one.nll, two.nll, rtol=RELATIVE, atol=0)


@pytest.mark.parametrize("rough", [False, True])
def test_the_largest_logits_do_not_depend_on_threads(rough):
    head = OutputHead(normal(0, 20_011, WIDTH))
    states, first = normal(1, 40, WIDTH), Rough.of(head.weight) if rough else None
    (one, tokens), (two, others) = with_threads(lambda: LargestLogits(head, first)(states, 50))
    scale = float(one.abs().max())
    torch.testing.assert_close(one, two, rtol=0, atol=RELATIVE * scale)
    for mine, row, other in zip(one, tokens.tolist(), others.tolist(), strict=True):
        edge = float(mine[-1])
        known = dict(zip(row, mine.tolist(), strict=True))
        assert all(
            known[token] == pytest.approx(edge, abs=RELATIVE * scale)
            for token in set(row) - set(other)
        ), "only tokens within rounding of the last may be others"


@pytest.mark.parametrize("layers", ["plain", "packed"])
def test_texts_do_not_depend_on_threads_but_for_draws_within_rounding(any_model, layers):
    place, rule, steps = HookPlace(1, "resid_post"), SamplingRule(temperature=0.9, top_k=20), 8
    texts = ["the capital of germany is", "a child", "the old house near the sea saw a train"] * 4
    openings = [any_model.encode(text) for text in texts]
    vectors = normal(3, len(texts), any_model.d_model) * 3
    draws = torch.stack(
        [torch.from_numpy(uniforms(number, text, 0, steps)) for number, text in enumerate(texts)]
    )

    def written():
        with packed_layers(any_model.causal.blocks if layers == "packed" else ()):
            return generate(
                any_model.causal, place, openings, Intervention(vectors), draws, rule,
                eos_tokens=frozenset(), pad_token=any_model.pad_token,
            )  # fmt: skip

    one, two = with_threads(written)

    def alone(row, tokens):
        return next_logits(any_model, [*openings[row], *tokens], place, adding(vectors[row]))

    assert_drawn_alike(two.tokens, one.tokens, alone, draws, rule)
