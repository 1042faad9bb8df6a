"""Ablation by the stage: every loss against plain Hugging Face code, matched latents, resume."""

import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.numpy import save_file

from loopscope.numerics.architectures.standard import Standard
from loopscope.state.failures import JobStopped
from loopscope.worker.concept_tokens import concept_tokens
from loopscope.worker.stages.ablation import stage as ablation
from loopscope.worker.stages.tables import write_sparse
from tests.stage_world import (
    CONCEPT_LATENT,
    HOOK,
    TARGET,
    World,
    add_steering_inputs,
    contents,
    table,
)

LEXICON = ["france", "paris", "wine", "cheese"]
CONTROLS = ("alikeInText", "alikeOnPrompts")


@pytest.fixture(scope="module", params=["rope_model", "learned_position_model"])
def ablated(request, tmp_path_factory):
    model = request.getfixturevalue(request.param)
    world = add_statistics(add_steering_inputs(World(model, tmp_path_factory.mktemp("ablation"))))
    world.payload = payload_of()
    world.exact = copy.deepcopy(model.hf_model).double()
    world.out, world.found = world.run(ablation, world.payload, "ablation", "ablation")
    return world


def payload_of(**changes):
    sides = {
        side: {"digest": digest, "dictionary": {"identity": side}}
        for side, digest in (("coarse", "dc"), ("fine", "df"))
    }
    return {
        "prompts": 10, "draws": 2, "seed": 0, "lexicon": LEXICON, "hook": HOOK, "model": {},
        "mapping": {"digest": "m"}, "geometry": {"digest": "g"}, **sides, **changes,
    }  # fmt: skip


def add_statistics(world):
    """Rates over text, activations and norms, as decompositions and a geometry would have them.

    Encoder rows are random beside the decoder's, so that reading and writing are not the same.
    """
    generator = np.random.default_rng(0)
    for side, digest, latents in (("coarse", "dc", 8), ("fine", "df", 16)):
        folder = world.folder / f"decomposition-{digest}"
        features = table(folder / "features.parquet")
        features["text_rate"] = (0.01 * (1 + np.arange(latents))).tolist()
        from tests.stage_world import _write

        _write(folder / "features.parquet", features)
        dense = generator.exponential(1.0, (8, latents)) * (generator.random((8, latents)) < 0.6)
        matrix = scipy.sparse.csr_array(dense.astype(np.float32))
        write_sparse(folder / "activations.safetensors", matrix)
        own = world.dictionaries[side]
        reads = own.w_enc + 0.3 * torch.randn(
            own.w_enc.shape, generator=torch.Generator().manual_seed(latents)
        )
        world.dictionaries[side] = Standard(reads, own.b_enc, own.w_dec, own.b_dec)
    (world.folder / "geometry").mkdir()
    save_file(
        {
            "coarse_norm": np.ones(8, np.float32), "fine_norm": np.ones(16, np.float32),
            "crowding": np.linspace(0, 1, 8),
        },
        world.folder / "geometry" / "decoders.safetensors",
    )  # fmt: skip
    return world


def rows_of(folder, name):
    columns = table(folder / name)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def cuts_of(folder):
    found = {}
    for row in rows_of(folder, "ablated_latents.parquet"):
        cut = found.setdefault((row["part"], row["control"], row["draw"]), [])
        cut.append((row["side"], row["latent"], row["stands_for"]))
    return found


def hugging_face(world, text, latents):
    """The next token's log-probabilities in float64, a · w taken out by a hook of our own."""
    names = dict(world.exact.named_modules())
    number = HOOK.split(".")[1]
    name = next(n for n in (f"model.layers.{number}", f"transformer.h.{number}") if n in names)

    def take_out(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        moved = hidden.clone()
        for side, latent, _ in latents:
            own = world.dictionaries[side]
            before = (hidden[0, 1:] - own.b_dec.double()) @ own.w_enc[:, latent].double()
            active = torch.relu(before + own.b_enc[latent].double())
            moved[0, 1:] -= active[:, None] * own.w_dec[latent].double()
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = names[name].register_forward_hook(take_out)
    with torch.no_grad():
        logits = world.exact(torch.tensor([world.model.encode(text)])).logits[0, -1]
    handle.remove()
    return torch.log_softmax(logits, dim=0)


def test_every_loss_is_that_of_hugging_face_with_the_latents_taken_out(ablated):
    concept = concept_tokens(ablated.model, LEXICON)
    cuts, rows = cuts_of(ablated.out), rows_of(ablated.out, "ablation_losses.parquet")
    assert len(rows) == len(TARGET) * 3 * (1 + 2 * 2)
    moved = 0
    for row in rows:
        text = TARGET[int(row["prompt_id"][1:])]
        out = cuts[row["part"], row["control"], row["draw"]]
        after, before = hugging_face(ablated, text, out), hugging_face(ablated, text, [])
        lost = torch.logsumexp(before[concept], 0) - torch.logsumexp(after[concept], 0)
        assert row["loss"] == pytest.approx(float(lost), rel=1e-3, abs=1e-5)
        kl = float((before.exp() * (before - after)).sum())
        assert row["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-7)
        moved += abs(float(lost)) > 1e-4
    assert moved > len(rows) / 3


def test_the_parts_are_the_anchor_its_children_and_both(ablated):
    cuts = cuts_of(ablated.out)
    anchor, child = ("coarse", 0, 0), ("fine", 1, 1)
    assert cuts["anchor", "", 0] == [anchor]
    assert cuts["children", "", 0] == [child]
    assert cuts["both", "", 0] == [anchor, child]


def test_controls_are_no_anchors_no_children_and_answer_to_nothing(ablated):
    for (part, control, _draw), latents in cuts_of(ablated.out).items():
        if not control:
            continue
        for side, latent, stands_for in latents:
            assert latent not in {"coarse": (0, 2), "fine": (1, 2)}[side]
            assert latent != CONCEPT_LATENT
            assert stands_for == {"coarse": 0, "fine": 1}[side]
        assert len(latents) == (2 if part == "both" else 1)


def test_the_answers_are_means_over_prompts(ablated):
    rows = rows_of(ablated.out, "ablation_losses.parquet")
    for part, number in ablated.found["parts"].items():
        own = [r["loss"] for r in rows if (r["part"], r["control"]) == (part, "")]
        assert number["loss"] == pytest.approx(np.mean(own))
        assert number["low"] <= number["loss"] <= number["high"]
    assert ablated.found["held_out"] is False and ablated.found["prompts"] == len(TARGET)


def test_what_is_lost_does_not_depend_on_what_shares_a_pass(ablated, monkeypatch):
    monkeypatch.setattr("loopscope.worker.stages.ablation.losses.CUTS_PER_PASS", 1)
    folder, _ = ablated.run(ablation, ablated.payload, "alone", "alone")
    pairs = zip(
        rows_of(folder, "ablation_losses.parquet"),
        rows_of(ablated.out, "ablation_losses.parquet"),
        strict=True,
    )
    for one, other in pairs:
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4, abs=1e-6)


def test_a_stopped_ablation_goes_on_to_the_same_bytes_after_each_shard(ablated, monkeypatch):
    monkeypatch.setattr("loopscope.worker.stages.ablation.losses.PROMPTS_PER_SHARD", 1)
    for stop_at in range(1, len(TARGET) + 1):
        name = f"stopped-{stop_at}"
        ablated.calls, ablated.stop_at = [], stop_at
        with pytest.raises(JobStopped):
            ablated.run(ablation, ablated.payload, name, name)
        ablated.stop_at = None
        again, _ = ablated.run(ablation, ablated.payload, f"{name}-on", name)
        assert contents(again) == contents(ablated.out)


def test_without_children_only_the_anchor_is_taken_out(ablated):
    import json

    path = ablated.folder / "mapping" / "directions.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "children": [], "children_of_all": []}))
    folder, found = ablated.run(ablation, ablated.payload, "childless", "childless")
    path.write_text(before)
    assert set(found["parts"]) == {"anchor"}
    assert {part for part, _, _ in cuts_of(folder)} == {"anchor"}


def test_of_many_prompts_those_are_read_whose_hash_comes_first(ablated):
    folder, found = ablated.run(ablation, payload_of(prompts=2), "two", "two")
    assert found["prompts"] == 2
    import hashlib

    first = sorted(range(len(TARGET)), key=lambda n: hashlib.sha256(TARGET[n].encode()).hexdigest())
    ids = {row["prompt_id"] for row in rows_of(folder, "ablation_losses.parquet")}
    assert ids == {f"p{number}" for number in first[:2]}
