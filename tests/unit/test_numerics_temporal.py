"""A temporal dictionary reads each row in its text, as SAELens' own does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from loopscope.inputs.architectures import ARCHITECTURES as STORED
from loopscope.numerics.architectures import ARCHITECTURES
from loopscope.numerics.architectures.temporal import Temporal
from loopscope.numerics.dictionaries.edge import encode_to_the_edge, encoder_norms
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.specs.contextual import CONTEXTUAL
from tests.unit.test_numerics_dictionary import random_dictionary, rows


def slow_predicted(dictionary: Temporal, text: torch.Tensor) -> np.ndarray:
    """What the rows before predict of each row: one token and one head at a time, in float64."""
    part = {
        name: getattr(dictionary, name).double().numpy() for name in dictionary.required_tensors
    }
    heads, found = dictionary.heads, np.zeros((len(text), dictionary.d_in))
    centred = text.double().numpy() - part["b_dec"]
    codes = np.maximum(centred @ part["w_enc"], 0)
    before = np.vstack([np.zeros_like(codes[:1]), codes[:-1]])
    for token in range(len(text)):
        seen = before[: token + 1]
        query = np.split(part["w_query"] @ codes[token] + part["b_query"], heads)
        keys = np.split(seen @ part["w_key"].T + part["b_key"], heads, axis=1)
        values = np.split(seen @ part["w_value"].T + part["b_value"], heads, axis=1)
        attended = []
        for one, key, value in zip(query, keys, values, strict=True):
            weight = np.exp(key @ one / len(one) ** 0.5)
            attended.append(weight @ value / weight.sum())
        mixed = part["w_mixed"] @ np.concatenate(attended) + part["b_mixed"]
        direction = np.maximum(mixed, 0) @ part["w_dec"]
        length = np.linalg.norm(direction) + dictionary.epsilon
        found[token] = direction @ centred[token] / length**2 * direction
    return found


def temporal() -> Temporal:
    made = random_dictionary("temporal", d_sae=48)
    assert isinstance(made, Temporal)
    return made


@pytest.mark.parametrize("tokens", [1, 2, 20])
def test_what_is_predicted_equals_a_slow_float64_reference(tokens):
    dictionary, text = temporal(), rows(tokens)
    read = dictionary.in_context(text)
    assert torch.equal(read[:, :12], text)
    np.testing.assert_allclose(read[:, 12:], slow_predicted(dictionary, text), atol=1e-5)


def test_a_row_reads_what_stands_before_it_and_nothing_behind():
    dictionary, text = temporal(), rows(10)
    other = text.clone()
    other[6] *= 3
    whole, changed = dictionary.in_context(text), dictionary.in_context(other)
    torch.testing.assert_close(changed[:6], whole[:6])
    assert not torch.allclose(changed[6:, 12:], whole[6:, 12:])
    torch.testing.assert_close(dictionary.in_context(text[:4]), whole[:4])


def test_rows_without_their_context_are_refused_everywhere():
    dictionary, x = temporal(), rows(5)
    found = encode(dictionary, dictionary.in_context(x), 5, 48)
    for wrong in (
        lambda: encode(dictionary, x, 5, 48),
        lambda: dictionary.activations(x, [0, 1]),
        lambda: dictionary.reconstruct(x, found),
        lambda: encode_to_the_edge(dictionary, x, 5, 48, encoder_norms(dictionary)),
    ):
        with pytest.raises(ValueError, match="reads rows of 24 numbers, as its in_context"):
            wrong()


def test_heads_that_do_not_divide_the_latents_are_refused():
    with pytest.raises(ValueError, match="divided among 5 heads"):
        replace(temporal(), heads=5)


def test_which_dictionaries_read_context_is_the_same_in_both_planes():
    assert {name for name, one in ARCHITECTURES.items() if one.reads_context} == CONTEXTUAL
    assert STORED.keys() >= CONTEXTUAL


def texts() -> dict[str, torch.Tensor]:
    """Texts on which a reader that is nearly right would go wrong."""
    alike = rows(1).repeat(8, 1)
    begun = torch.cat([1e3 * torch.ones(1, 12), rows(7)])
    return {
        "drawn": 2 * rows(30), "one token": rows(1), "all zero": torch.zeros(6, 12),
        "all alike": alike, "a huge first row": begun, "whole numbers": (2 * rows(20)).round(),
        "turned round": torch.cat([alike, -alike]),
    }  # fmt: skip


@pytest.mark.integration  # importing SAELens takes ten seconds
@pytest.mark.parametrize(("kind", "k"), [("topk", 6), ("topk", None), ("relu", None)])
@pytest.mark.parametrize("text", texts())
def test_texts_are_encoded_and_rebuilt_as_by_saelens(kind, k, text):
    from sae_lens import TemporalSAE, TemporalSAEConfig

    ours, x, scale = temporal(), texts()[text], 0.3
    ours.w_dec[1] = ours.w_dec[0]  # two latents that tie in every row, and one that never fires
    ours.w_dec[3] = 0
    config = TemporalSAEConfig(
        d_in=12, d_sae=48, n_heads=2, bottleneck_factor=12, sae_diff_type=kind, kval_topk=k,
        normalize_activations="constant_scalar_rescale", activation_normalization_factor=scale,
        dtype="float32", device="cpu",
    )  # fmt: skip
    theirs = TemporalSAE(config)
    layer = theirs.attn_layers[0]
    named = {
        "query": layer.q_target,
        "key": layer.k_ctx,
        "value": layer.v_ctx,
        "mixed": layer.c_proj,
    }
    with torch.no_grad():
        theirs.W_dec.copy_(ours.w_dec)
        theirs.b_dec.copy_(ours.b_dec)
        for name, linear in named.items():
            linear.weight.copy_(getattr(ours, f"w_{name}"))
            linear.bias.copy_(getattr(ours, f"b_{name}"))
        expected, rebuilt = theirs.encode(x[None])[0], theirs(x[None])[0]
    ours = replace(
        ours, w_enc=(ours.w_dec.T * (scale / 48)).contiguous(), b_enc=torch.zeros(48),
        w_dec=ours.w_dec / scale, b_dec=ours.b_dec / scale, epsilon=1e-6 / scale, k=k or 48,
    )  # fmt: skip
    read = ours.in_context(x)
    found = encode(ours, read, 7, 13)
    dense, wanted = found.toarray(), expected.numpy()
    twins = (dense[:, :2], wanted[:, :2])  # of equal ones TopK takes the first, SAELens any
    np.testing.assert_allclose(*(np.sort(one) for one in twins), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense[:, 2:], wanted[:, 2:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.reconstruct(read, found), rebuilt, rtol=1e-5, atol=1e-3)
