"""Each place in a block, in each family, against the sums that the block's modules make by hand."""

from __future__ import annotations

import pytest
import torch

from loopscope.numerics.model.batching import pad
from loopscope.numerics.model.capture import check_residual, residuals_at_hooks
from loopscope.numerics.model.hooks import HookPlace, steered
from loopscope.numerics.steering.fixed_text import carried_on, read_text
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.passes import steered_states
from loopscope.numerics.steering.reading import streams_of
from loopscope.specs.hooks import STREAMS, Hook
from loopscope.state.failures import TerminalFailure
from tests.tiny_families import FAMILIES
from tests.tiny_models import folder_reference

TOKENS = [1, 44, 12, 31, 7, 60, 22, 53, 18]
BLOCK = 1


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory, one_torch_thread):
    """A family and its tiny model."""
    from loopscope.worker.models import load_model

    folder = tmp_path_factory.mktemp(request.param)
    family = FAMILIES[request.param]
    family.save(folder)
    cache = tmp_path_factory.mktemp("cache")
    model = load_model(folder_reference(folder), cache, "cpu", lambda *_: None)
    with torch.no_grad():  # norms that do something, or a forgotten weight would not be seen
        generator = torch.Generator().manual_seed(5)
        for name, weights in model.hf_model.named_parameters():
            if "norm" in name or "ln_" in name:
                weights.add_(torch.rand(weights.shape, generator=generator) - 0.3)
    return family, model


def block_of(model):
    return model.causal.blocks[BLOCK]


def normalised(family, norm, x):
    """The formula of Ba et al. 2016, and of Zhang and Sennrich 2019."""
    if family.offset is None:
        x = x - x.mean(dim=-1, keepdim=True)
    epsilon = getattr(norm, "eps", None) or norm.variance_epsilon
    return x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()


def weighted(family, norm, rows):
    if family.offset is None:
        return rows * norm.weight + norm.bias
    return rows * (norm.weight + family.offset)


class ByHand:
    """One block by its modules: what its attention gets and gives is recorded, the rest summed."""

    def __init__(self, family, model):
        self.family, self.block, seen = family, block_of(model), {}
        watched = {
            "pre": self.block,
            "z": self.block.get_submodule(family.projection),
            "down": self.block.get_submodule(family.mlp_down),
        }
        handles = [
            module.register_forward_pre_hook(
                lambda _m, inputs, named, name=name: seen.update(
                    {name: inputs[0] if inputs else named["hidden_states"]}
                ),
                with_kwargs=True,
            )
            for name, module in watched.items()
        ]
        with torch.no_grad():
            model.hf_model(input_ids=torch.tensor([TOKENS]))
        for handle in handles:
            handle.remove()
        self.pre, self.z, self.down = seen["pre"], seen["z"], seen["down"]

    def part(self, path):
        return (lambda rows: rows) if path is None else self.block.get_submodule(path)

    @torch.no_grad()
    def streams(self, stream=None, v=0.0):
        """Return all streams, with ``v`` added at ``stream`` and everything behind it."""

        def at(name, rows):
            found[name] = rows + v if name == stream else rows
            return found[name]

        found, family = {}, self.family
        norm = self.part(family.mlp_norm)
        pre = at("resid_pre", self.pre)
        z = at("attn.z", self.z)
        attention = at(
            "attn_out", self.part(family.attention_after)(self.part(family.projection)(z))
        )
        mid = pre if family.parallel else at("resid_mid", pre + attention)
        entering = at("mlp_in", mid)
        rows = at("ln2.normalized", normalised(family, norm, entering))
        inside = []
        keep = self.block.get_submodule(family.mlp_down).register_forward_pre_hook(
            lambda _m, inputs: inside.append(inputs[0])
        )
        self.block.mlp(at("mlp.in", weighted(family, norm, rows)))
        keep.remove()
        post = at("mlp.post", inside[0])
        added = at("mlp_out", self.part(family.mlp_after)(self.part(family.mlp_down)(post)))
        at("resid_post", mid + added + (attention if family.parallel else 0.0))
        return found


def places_of(family):
    return [stream for stream in STREAMS if stream != "resid_mid" or not family.parallel]


def close(found, expected):
    scale = float(expected.abs().max())
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


def test_every_place_is_captured_as_the_modules_make_it(case):
    family, model = case
    expected = ByHand(family, model).streams()
    batch = pad([TOKENS, TOKENS[:5]], model.pad_token, "right")
    for stream in places_of(family):
        hook = str(Hook(BLOCK, stream))
        found = residuals_at_hooks(model.bridge, [hook], batch)[hook]
        check_residual(found, batch, model.width(hook), hook)
        assert close(found[0], expected[stream][0]), stream
        plain = streams_of(model.causal, [model.place(hook)], TOKENS)[model.place(hook)]
        assert close(plain, expected[stream][0]), stream


def test_the_heads_stand_one_after_the_other(case):
    family, model = case
    attention = block_of(model).get_submodule(family.attention)
    head_dim = getattr(attention, "head_dim", None) or attention.head_size
    hook = str(Hook(BLOCK, "attn.z"))
    heads = model.width(hook) // head_dim
    z = streams_of(model.causal, [model.place(hook)], TOKENS)[model.place(hook)]
    values = {}
    name = "v_proj" if hasattr(attention, "v_proj") else None
    if name is None:
        return  # fused: the order is Hugging Face's own reshape of [heads, head_dim]
    handle = attention.v_proj.register_forward_hook(lambda _m, _i, out: values.update(v=out))
    with torch.no_grad():
        model.hf_model(input_ids=torch.tensor([TOKENS]))
    handle.remove()
    keys = values["v"].shape[-1] // head_dim
    first = values["v"][0, 0].view(keys, head_dim).repeat_interleave(heads // keys, dim=0)
    assert close(z[0], first.flatten()), "the first token attends to itself alone"


def test_steering_moves_what_lies_behind_the_place_and_nothing_else(case):
    family, model = case
    by_hand = ByHand(family, model)
    after = HookPlace(BLOCK, "resid_post")
    for stream in places_of(family):
        place = model.place(str(Hook(BLOCK, stream)))
        width = model.width(str(Hook(BLOCK, stream)))
        v = torch.randn(width, generator=torch.Generator().manual_seed(0)) * 3
        if stream == "resid_pre":
            continue  # attention is not run by hand
        expected = by_hand.streams(stream, v)["resid_post"][0]
        with steered(model.causal, place, lambda hidden, v=v: hidden + v):
            found = streams_of(model.causal, [after], TOKENS)[after]
        assert close(found, expected), stream
        clean = streams_of(model.causal, [after], TOKENS)[after]
        assert not close(found, clean), stream
        assert close(clean, by_hand.streams()["resid_post"][0]), "and leaves the model as it was"


def test_a_pass_that_begins_at_a_place_within_a_block_is_the_whole_pass(case):
    family, model = case
    for stream in places_of(family):
        for block in range(model.n_layers):
            place = HookPlace(block, stream)
            width = model.width(str(Hook(block, stream)))
            vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(0)) * 3
            text = read_text(model.causal, place, TOKENS, [2, 5])
            found = carried_on(model.causal, text, Intervention(vectors))
            whole = steered_states(model.causal, place, TOKENS, Intervention(vectors))[:, [2, 5]]
            assert torch.allclose(found, whole, rtol=1e-4, atol=1e-4), place


def test_parallel_blocks_have_nothing_between_attention_and_mlp(case):
    family, model = case
    hook = str(Hook(BLOCK, "resid_mid"))
    if not family.parallel:
        assert model.place(hook) == HookPlace(BLOCK, "resid_mid")
        return
    with pytest.raises(TerminalFailure, match=r"hook_resid_mid: attention and MLP .* same stream"):
        model.place(hook)
