"""Five defects, each planted into one of two runs of the same work, are named by comparison."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.numerics.architectures.jumprelu import JumpRelu
from loopscope.views.replication.replication import replication
from loopscope.views.replication.run import Run, StageRun
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition import stage as decomposition
from tests.conftest import _load
from tests.stage_world import HOOK, NEUTRAL, TARGET, World, capture_payload

NEXT_HOOK = "blocks.2.hook_resid_post"
MODEL = {"files": {"model.safetensors": "a", "tokenizer.json": "b"}, "dtype": "float32"}


def stage_run(folder, name="one", **inputs):
    """What a stage left in a folder, under digests of its own."""
    files = {path.name: path for path in folder.iterdir()}
    return StageRun(f"work-{name}", f"bytes-{name}", {"inputs": inputs}, files)


def captured(loaded, folder, at=HOOK, **inputs):
    """A capture of the same prompts, with what its manifest says it was given."""
    out, _ = World(loaded, folder).run(capture, capture_payload(hook=at))
    return stage_run(out, str(folder), **({"hook": HOOK, "model": MODEL} | inputs))


def compared(one, two, stage="capture", **known):
    """Two runs of which only one stage is there."""
    return replication(Run("first", {}, {stage: one}), Run("second", {}, {stage: two}), **known)


def names(found):
    return [cause.name for cause in found.causes]


class TwoBos(LoadedModel):
    """A model whose tokenizer already adds the BOS that is put before every text."""

    def encode(self, text):
        return [self.plain_bos, *super().encode(text)]


def with_two_bos(model):
    fields = {name: getattr(model, name) for name in model.__dataclass_fields__}
    return TwoBos(**fields)


def test_a_bos_that_stands_twice_is_named(any_model, tmp_path, monkeypatch):
    # a capture of today refuses such a prompt; the code that made the other run did not
    monkeypatch.setattr("loopscope.worker.stages.capture.preflights.require", lambda checks: {})
    found = compared(
        captured(any_model, tmp_path / "once"),
        captured(with_two_bos(any_model), tmp_path / "twice"),
    )
    assert found.parted.stage == "capture"
    assert names(found) == ["double BOS"]
    assert "in the second run" in found.causes[0].evidence


def test_a_neighbouring_place_is_named_where_its_rows_are_known(any_model, tmp_path):
    declared = captured(any_model, tmp_path / "declared")
    wrong = captured(any_model, tmp_path / "wrong", at=NEXT_HOOK)  # and its manifest says HOOK
    neighbour = captured(any_model, tmp_path / "neighbour", at=NEXT_HOOK, hook=NEXT_HOOK)
    assert names(compared(declared, wrong)) == []
    found = compared(declared, wrong, others=[neighbour])
    assert names(found) == ["neighbouring hook"]
    assert NEXT_HOOK in found.causes[0].evidence


def folded(folder, target):
    """The same model, with each weight that writes into its stream centred over the stream."""
    target.mkdir()
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        writes = ".wte." in f".{name}" or ".wpe." in f".{name}" or ".c_proj." in name
        if writes:
            weights[name] = value - value.mean(dim=-1, keepdim=True)
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def test_folded_weights_are_named(learned_position_model_folder, learned_position_model, tmp_path):
    own = folded(learned_position_model_folder, tmp_path / "folded")
    found = compared(
        captured(learned_position_model, tmp_path / "published"),
        captured(_load(own, tmp_path / "cache"), tmp_path / "centred"),
    )
    assert names(found) == ["folded weights"]


def other_tokenizer(folder, target):
    """The same weights, with a tokenizer in which two words have changed places."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["▁paris"], words["▁lyon"] = words["▁lyon"], words["▁paris"]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    return target


def test_a_tokenizer_of_another_revision_is_named(rope_model_folder, rope_model, tmp_path):
    own = other_tokenizer(rope_model_folder, tmp_path / "other")
    files = {**MODEL["files"], "tokenizer.json": "c"}
    found = compared(
        captured(rope_model, tmp_path / "one"),
        captured(_load(own, tmp_path / "cache"), tmp_path / "two", model={**MODEL, "files": files}),
    )
    assert names(found) == ["tokenizer"]
    assert "all other files of the model are the same" in found.causes[0].evidence
    assert found.parted.words.startswith("3 rows of 8")


@pytest.fixture
def thresholds_world(rope_model, tmp_path):
    """A captured world, and thresholds so near to activations that bfloat16 moves them across."""
    world = World(rope_model, tmp_path / "world")
    out, _ = world.run(capture, capture_payload(), "capture", "capture")
    rows = load_file(out / "residual.safetensors")["residual"]
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.functional.normalize(torch.randn(24, rows.shape[1], generator=generator))
    hidden = rows @ weights.T
    exact = hidden.clamp(min=0).quantile(0.4, dim=0).clamp(min=0.1)
    for latent, value in enumerate(hidden.max(dim=0).values):
        if value > 0.1 and value.bfloat16().float() > value:
            exact[latent] = value * (1 - 1e-5)  # just below the activation, rounded to above it
    assert ((hidden > exact) & (hidden <= exact.bfloat16().float())).any(dim=0).sum() >= 3
    return world, weights, exact


def decomposed(world, weights, thresholds, name, splits=None):
    zero = torch.zeros(len(weights))
    world.dictionaries[name] = JumpRelu(
        weights.T.contiguous(), zero, weights, torch.zeros(weights.shape[1]), threshold=thresholds
    )
    payload = {
        "capture": {"digest": "c"}, "dictionary": {"identity": name},
        "splits": splits or ["discover"] * len(TARGET + NEUTRAL), "aggregation": "last",
    }  # fmt: skip
    out, _ = world.run(decomposition, payload, f"decomposition-{name}", name)
    return stage_run(out, name, dictionary={"identity": "d"})


def test_thresholds_in_bfloat16_are_named(thresholds_world):
    world, weights, exact = thresholds_world
    one = decomposed(world, weights, exact, "exact")
    two = decomposed(world, weights, exact.bfloat16().float(), "blurred")
    known = {"coarse": exact.double().numpy()}
    found = compared(one, two, "coarse", thresholds=known)
    assert names(found) == ["bfloat16 thresholds"]
    assert names(compared(two, one, "coarse", thresholds=known)) == ["bfloat16 thresholds"]


def test_thresholds_that_moved_further_are_not_taken_for_rounded_ones(thresholds_world):
    world, weights, exact = thresholds_world
    one = decomposed(world, weights, exact, "exact")
    two = decomposed(world, weights, exact * 2, "higher")
    found = compared(one, two, "coarse", thresholds={"coarse": exact.double().numpy()})
    assert found.parted is not None and names(found) == []


def test_decoder_norms_in_the_activations_are_named(thresholds_world):
    world, weights, exact = thresholds_world
    norms = torch.linspace(0.5, 2, len(weights))
    one = decomposed(world, weights, exact, "exact")
    two = decomposed(world, weights * norms[:, None], exact * norms, "folded")
    assert names(compared(one, two, "coarse")) == ["folded norms"]


def test_other_halves_of_the_prompts_are_named(thresholds_world):
    world, weights, exact = thresholds_world
    halves = ["discover", "test"] * len(TARGET + NEUTRAL)
    count = len(TARGET + NEUTRAL)
    one = decomposed(world, weights, exact, "even", halves[:count])
    two = decomposed(world, weights, exact, "odd", halves[1 : count + 1])
    found = compared(one, two, "coarse")
    assert names(found) == ["splits"]
    assert found.causes[0].evidence.startswith(f"{count} of {count} prompts are in the other half")


def test_the_same_work_twice_has_the_same_bytes_and_no_cause(any_model, tmp_path):
    one = captured(any_model, tmp_path / "one")
    again = replace(captured(any_model, tmp_path / "two"), content_digest=one.content_digest)
    found = compared(one, again)
    assert (found.answer, found.causes) == ("same bytes", ())
    assert found.steps[0].state == "same bytes"


def test_rounding_is_no_difference(any_model, tmp_path):
    one = captured(any_model, tmp_path / "one")
    two = captured(any_model, tmp_path / "two")
    tensors = load_file(two.files["residual.safetensors"])
    tensors["residual"] *= 1 + 1e-6
    save_file(tensors, two.files["residual.safetensors"])
    found = compared(one, two)
    assert found.steps[0].state == "same numbers" and found.causes == ()
    assert found.parted is None
