"""Drift in numbers: curves, half-lives and tests with a known truth, and worlds where it fades."""

import copy
import math

import numpy as np
import pytest
import scipy.stats
import torch

from loopscope.numerics.drift.curve import Effect, band, fades, half_life
from loopscope.numerics.drift.next_token import beside
from loopscope.numerics.drift.reading import Beginning, Piece, Reader, read_over_filler
from loopscope.numerics.drift.wandering import drawn
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.intervention import Intervention

DISTANCES = (0, 10, 100, 1000)


def effects(generator, half, groups=8, each=3, noise=0.05):
    """Effects of a world that fades as 1 / (1 + d / half), openings alike within a filler."""
    shape = np.array([1 / (1 + d / half) for d in DISTANCES])
    of_group = generator.normal(0, noise, (groups, 1, len(DISTANCES)))
    values = shape + of_group + generator.normal(0, noise, (groups, each, len(DISTANCES)))
    group = np.repeat(np.arange(groups), each)
    return values.reshape(-1, len(DISTANCES)), group


def test_a_half_life_by_hand():
    """From 1 at 0 to 0.5 at 10: reached exactly there; linear in log(1 + d) in between."""
    group = np.arange(8)
    at_ten = half_life(DISTANCES, np.tile([1.0, 0.5, 0.2, 0.1], (8, 1)), group)
    assert at_ten.estimate == pytest.approx(10)
    between = half_life(DISTANCES, np.tile([1.0, 0.75, 0.25, 0.1], (8, 1)), group)
    middle = math.expm1((math.log1p(10) + math.log1p(100)) / 2)
    assert between.estimate == pytest.approx(middle)


def test_a_half_life_beyond_the_last_distance_is_not_reached():
    found = half_life(DISTANCES, np.tile([1.0, 0.9, 0.8, 0.7], (8, 1)), np.arange(8))
    assert (found.estimate, found.high) == (None, None)


def truth(half):
    """Where the curve, linear in log(1 + d) between the distances, comes down to a half."""
    places = np.log1p(DISTANCES)
    shape = np.array([1 / (1 + d / half) for d in DISTANCES])
    tried = np.linspace(places[0], places[-1], 200_001)
    return float(np.expm1(tried[np.argmax(np.interp(tried, places, shape) <= 0.5)]))


@pytest.mark.parametrize("half", [30.0, 200.0])
def test_the_interval_of_a_half_life_covers_the_true_one(half):
    generator = np.random.default_rng(77)
    true, held, worlds = truth(half), 0, 200
    for _ in range(worlds):
        found = half_life(DISTANCES, *effects(generator, half))
        low = math.inf if found.low is None else found.low
        held += low <= true <= (math.inf if found.high is None else found.high)
    assert 0.91 <= held / worlds <= 0.99


def test_a_fade_is_found_where_there_is_one_and_seldom_where_there_is_none():
    generator = np.random.default_rng(3)
    said = {"fades": 0, "no fade shown": 0}
    for _ in range(40):
        values, group = effects(generator, 200.0)
        (found,) = fades([Effect(values[:, 0], values[:, -1])], group)
        said[found.word] = said.get(found.word, 0) + 1
    assert said["fades"] == 40
    wrong = 0
    for _ in range(400):
        first, group = effects(generator, 1e12, noise=0.2)
        found = fades([Effect(first[:, 0], first[:, 1])], group)
        wrong += found[0].word == "fades"
    assert wrong / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_fillers_that_are_shared_count_once():
    """Twelve openings behind two fillers are two units: nothing can be said of them."""
    values, _ = effects(np.random.default_rng(0), 5.0, groups=12, each=1, noise=0.01)
    (found,) = fades([Effect(values[:, 0], values[:, -1])], np.repeat([0, 1], 6))
    assert found.p >= 0.25 and found.word == "no fade shown"
    (each,) = fades([Effect(values[:, 0], values[:, -1])], np.arange(12))
    assert each.p <= 0.001 and each.word == "fades"


def test_what_was_never_there_has_no_effect_to_fade():
    values = np.random.default_rng(1).normal(0, 1, (8, 2))
    (found,) = fades([Effect(values[:, 0], values[:, 1])], np.arange(8))
    assert found.word == "no effect"


def test_tests_of_several_anchors_are_corrected_together():
    values, group = effects(np.random.default_rng(2), 200.0)
    one = Effect(values[:, 0], values[:, -1])
    (alone,) = fades([one], group)
    assert fades([one, one, one], group)[0].p_holm == pytest.approx(min(1, 3 * alone.p))


def test_a_band_of_few_groups_is_that_of_scipys_t():
    values = np.array([0.2, 0.5, 0.4, 0.9, 0.1])
    found = band(values, np.arange(5))
    low, high = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def head_of(vocabulary=7, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return OutputHead(torch.randn(vocabulary, width, generator=generator))


def test_divergence_and_concept_are_those_of_scipy():
    head, states = head_of(), torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    kl, mass = beside(head, states, [2, 5])
    p = scipy.special.softmax((states @ head.weight.T).double().numpy(), axis=1)
    assert kl.tolist() == pytest.approx([scipy.stats.entropy(p[0], row) for row in p], abs=1e-7)
    assert mass.tolist() == pytest.approx((p[:, 2] + p[:, 5]).tolist())


def test_a_state_that_is_no_number_is_named_by_its_row():
    states = torch.ones(3, 4)
    states[2, 1] = math.nan
    with pytest.raises(NotFinite) as found:
        beside(head_of(), states, [0])
    assert found.value.row == 2
    with pytest.raises(NotFinite) as found:
        beside(head_of(), torch.cat([torch.ones(40, 4), states]), [0])
    assert found.value.row == 42


def test_draws_at_a_temperature_have_its_frequencies():
    """Evenly spread draws hit each token as often as p^(1/T) says, and wander is its KL to p."""
    head, state = head_of(), torch.tensor([[0.3, -0.2, 0.5, 0.1]])
    p = scipy.special.softmax((state @ head.weight.T)[0].double().numpy())
    for heat in (0.4, 1.0, 2.5):
        q = p ** (1 / heat) / (p ** (1 / heat)).sum()
        many = 4000
        step = drawn(
            head, state.expand(many, -1), torch.full((many,), heat),
            (torch.arange(many) + 0.5) / many, [1],
        )  # fmt: skip
        shares = np.bincount(step.token.numpy(), minlength=len(p)) / many
        assert shares == pytest.approx(q, abs=2 / many)
        assert float(step.wander[0]) == pytest.approx(scipy.stats.entropy(q, p), abs=1e-6)
        assert step.surprisal.tolist() == pytest.approx(-np.log(p)[step.token.numpy()], abs=1e-5)
        assert float(step.concept[0]) == pytest.approx(p[1], abs=1e-6)


def gemma3(window, layers=4):
    """A tiny Gemma 3: every block slides over ``window`` tokens but the last one."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention"] * (layers - 1) + ["full_attention"]
    config = Gemma3TextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8,
        sliding_window=window, layer_types=kinds, max_position_embeddings=512,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Gemma3ForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.data.normal_(std=0.3)
    model.requires_grad_(requires_grad=False)
    return model


def causal(model):
    return CausalModel(model.model, list(model.model.layers), OutputHead(model.lm_head.weight))


BOTH = (False, True)


def beginning(width=16, norm=3.0):
    vectors = torch.zeros(2, width)
    vectors[1, 2] = norm
    return Beginning((1, 5, 9, 7), Intervention(vectors), BOTH, BOTH)


def test_pieces_give_the_states_of_a_whole_pass_also_where_attention_slides(monkeypatch):
    """The cache of a sliding block forgets; an ending that is read aside leaves it as it was."""
    monkeypatch.setattr("loopscope.numerics.drift.reading.TOKENS_PER_PASS", 6)
    model, place = gemma3(window=5), HookPlace(1, "resid_post")
    start, opening = beginning(), (20, 21, 22)
    filler = tuple(10 + n % 40 for n in range(30))
    lengths, seen = (0, 3, 14, 30), []
    read_over_filler(
        causal(model), place, start, [filler[:n] for n in lengths],
        lambda number, reader: seen.append(reader.ended([Piece(opening, BOTH)])),
    )  # fmt: skip
    for length, states in zip(lengths, seen, strict=True):
        tokens = [*start.tokens, *filler[:length], *opening]
        for row in range(2):
            expected = whole_pass(model, tokens, start.intervention.vectors[row])
            torch.testing.assert_close(states[row].double(), expected, rtol=1e-4, atol=1e-5)


def whole_pass(model, tokens, vector, block=1):
    exact = copy.deepcopy(model).double()

    def add(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden.clone()
        moved[:, 1:] += vector.double()
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = exact.model.layers[block].register_forward_hook(add)
    with torch.no_grad():
        hidden = exact.model(torch.tensor([tokens])).last_hidden_state
    handle.remove()
    return hidden[0, -1]


def test_a_model_that_cannot_look_back_forgets_a_prefix_and_not_steering_at_each_token():
    """Planted: three blocks that see three tokens, and a last one whose attention adds nothing."""
    model = gemma3(window=3)
    model.model.layers[-1].self_attn.o_proj.weight.data.zero_()
    bodied, lengths = causal(model), (0, 4, 8, 40, 80)
    filler = tuple(10 + n % 40 for n in range(max(lengths)))
    found = {}
    for name, acts in (("prefix", (False, False)), ("each token", BOTH)):
        start = Beginning((1, 5, 9, 7), beginning().intervention, BOTH, acts)
        own = found[name] = []
        read_over_filler(
            bodied, HookPlace(0, "resid_post"), start, [filler[:n] for n in lengths],
            lambda number, reader, own=own, acts=acts: own.append(
                float(beside(bodied.head, reader.ended([Piece((20, 21), acts)]), [3])[0][1])
            ),
        )  # fmt: skip
    assert found["prefix"][0] > 1e-4
    assert found["prefix"][-2:] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert min(found["each token"]) > 1e-3
    curve = np.outer(np.linspace(0.9, 1.1, 8), found["prefix"])  # eight units that differ a little
    assert half_life(lengths, curve, np.arange(8)).estimate < 40
    (fade,) = fades([Effect(curve[:, 0], curve[:, -1])], np.arange(8))
    assert fade.word == "fades"


def test_bos_is_never_steered():
    model = gemma3(window=5)
    reader = Reader(causal(model), HookPlace(1, "resid_post"), beginning().intervention)
    states = reader.read(Piece((1,), BOTH))
    torch.testing.assert_close(states[0], states[1])
