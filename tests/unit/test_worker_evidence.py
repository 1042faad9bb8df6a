"""Evidence by the stage: tokens, activations, nearest latents and logit lens of a tiny model."""

import numpy as np
import pytest
import torch

from loopscope.numerics.gate.matching import Covariates, nearest_matched
from loopscope.numerics.latents.nearest import nearest_rows
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.lens import pushed_tokens
from loopscope.numerics.model.normalisation import Normalisation
from loopscope.specs.shown_latents import drawn_order
from loopscope.worker.encoding import EncodedText
from loopscope.worker.stages.evidence import stage as evidence
from loopscope.worker.stages.evidence.chosen import shown_prompts
from loopscope.worker.stages.evidence.stage import token_texts
from tests.artifact_world import evidence_payload, run_stages
from tests.stage_world import HOOK, World, contents, interrupted_and_resumed, table


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    made = World(rope_model, tmp_path_factory.mktemp("evidence"))
    run_stages(made, everything=True)
    return made


@pytest.fixture(scope="module")
def files(world):
    folder = world.folder / "evidence"
    return {path.stem: table(path) for path in folder.iterdir()}


def rows(columns):
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def test_shown_are_anchors_their_children_and_controls_that_are_no_anchors(files):
    shown = rows(files["latents"])
    anchors = [one["latent"] for one in shown if one["role"] == "anchor"]
    assert anchors == [0, 1]
    assert {one["anchor"] for one in shown if one["role"] == "child"} <= set(anchors)
    controls = [one for one in shown if one["role"] == "control"]
    assert controls and not {one["latent"] for one in controls} & set(anchors)
    assert all(one["side"] == "coarse" and one["anchor"] in anchors for one in controls)


def test_the_tokens_of_a_prompt_put_together_are_its_text(world, files):
    texts = dict(
        zip(
            *(table(world.folder / "capture/prompts.parquet")[c] for c in ("prompt_id", "text")),
            strict=True,
        )
    )
    written = {}
    for row in rows(files["tokens"]):
        written[row["prompt_id"]] = written.get(row["prompt_id"], "") + row["text"]
    assert written and all(text == texts[name] for name, text in written.items())


def test_the_activation_of_a_read_token_is_that_of_the_prompt(world, files):
    (read,) = [{row["prompt_id"]: row["place"] for row in rows(files["tokens"]) if row["read"]}]
    found = {
        (row["side"], row["latent"], row["prompt_id"], row["place"]): row["activation"]
        for row in rows(files["token_activations"])
    }
    for row in rows(files["shown_prompts"]):
        key = (row["side"], row["latent"], row["prompt_id"], read[row["prompt_id"]])
        assert found.get(key, 0.0) == pytest.approx(row["activation"], rel=1e-4, abs=1e-5)
    assert world.metrics["evidence"]["largest_difference"] < 1e-4


def test_the_encoder_of_a_kept_dictionary_gives_every_activation(world, files):
    """Against the dictionary as a whole on the stream as Hugging Face has it."""
    row = max(rows(files["token_activations"]), key=lambda one: one["activation"])
    prompts = table(world.folder / "capture/prompts.parquet")
    text = prompts["text"][prompts["prompt_id"].index(row["prompt_id"])]
    tokens = torch.tensor([world.model.encode(text)])
    block = int(HOOK.split(".")[1])
    seen = world.model.hf_model(tokens, output_hidden_states=True).hidden_states[block + 1][0]
    dictionary = world.dictionaries["c" if row["side"] == "coarse" else "f"]
    own = dictionary.activations(seen[row["place"]][None], [row["latent"]])
    assert float(own[0, 0]) == pytest.approx(row["activation"], rel=1e-4)


def test_across_and_nearest_are_cosines_of_decoder_rows(world, files):
    coarse, fine = (torch.nn.functional.normalize(world.dictionaries[n].w_dec, dim=1) for n in "cf")
    for row in rows(files["cosines"]):
        assert row["cosine"] == pytest.approx(
            float(coarse[row["coarse"]] @ fine[row["fine"]]), abs=1e-5
        )
    for row in rows(files["nearest"]):
        unit = coarse if row["side"] == "coarse" else fine
        assert row["other"] != row["latent"]
        assert row["cosine"] == pytest.approx(
            float(unit[row["latent"]] @ unit[row["other"]]), abs=1e-5
        )


def test_the_logit_lens_is_read_off_at_the_unembedding(world, files):
    head, norm = world.model.causal.head, evidence._final_norm(world.model)
    formula = evidence.normalisation_of(norm)
    row = next(
        one for one in rows(files["logit_lens"]) if one["direction"] == "up" and one["rank"] == 0
    )
    decoder = world.dictionaries["c" if row["side"] == "coarse" else "f"].w_dec
    unit = torch.nn.functional.normalize(decoder[row["latent"]], dim=0)
    logits = head.weight.float() @ (unit * formula.gain) * head.scale
    assert float(logits.max()) == pytest.approx(row["logit"], rel=1e-4)
    assert world.model.written(int(logits.argmax())) == row["token"]
    assert world.metrics["evidence"]["lens"] is None


def test_what_is_not_added_to_the_stream_has_no_lens_and_says_why(world):
    payload = evidence_payload(everything=True) | {"writeHook": "blocks.2.mlp.hook_in"}
    folder, metrics = world.run(evidence, payload, "no-lens", "no-lens")
    assert not (folder / "logit_lens.parquet").exists()
    assert "not added to the residual stream" in metrics["lens"]


def test_a_stopped_run_that_goes_on_writes_the_same_bytes(world):
    payload = evidence_payload(everything=True)
    assert interrupted_and_resumed(world, evidence, payload, 2) == contents(
        world.folder / "evidence"
    )


# -- the parts -------------------------------------------------------------------------------


def test_top_prompts_fire_and_random_ones_are_the_same_for_all_latents_but_for_these():
    texts = [f"text {n}" for n in range(20)]
    drawn = drawn_order(texts)
    assert sorted(drawn) == list(range(20)) != drawn
    silent = shown_prompts(np.zeros(20, np.float32), drawn, 3, 4)
    assert [one.chosen for one in silent] == ["random"] * 4
    some = np.zeros(20, np.float32)
    some[[2, 7]] = 1.0, 3.0
    found = shown_prompts(some, drawn, 3, 4)
    assert [(one.number, one.chosen) for one in found[:2]] == [(7, "top"), (2, "top")]
    same = [one.number for one in silent if one.number not in (2, 7)]
    assert [one.number for one in found[2:]][: len(same)] == same


def test_a_character_of_two_tokens_is_written_once_and_spaces_go_to_the_next_token():
    spans = [(0, 0), (0, 2), (3, 4), (3, 4), (4, 6)]
    one = EncodedText("ab €cd", "ab €cd", [0] * 5, spans, (0, 6), 6)
    assert token_texts(one) == ["", "ab", " €", "", "cd"]


def test_nearest_rows_leave_the_row_itself_out_across_blocks(monkeypatch):
    from loopscope.numerics.latents import nearest

    monkeypatch.setattr(nearest, "ROWS_PER_BLOCK", 2)
    decoder = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0], [3.0, 1.0]])
    others, cosines = nearest_rows(decoder, [0, 2], 2)
    assert others.tolist() == [[1, 4], [4, 1]]
    assert float(cosines[0, 0]) == pytest.approx(2 / np.hypot(2, 0.1))


def test_fewer_latents_than_asked_for_are_all_of_them():
    others, _ = nearest_rows(torch.eye(3), [1], 8)
    assert sorted(others[0].tolist()) == [0, 2]


@pytest.mark.parametrize("centres", [False, True])
def test_pushed_tokens_are_those_of_the_whole_product_below_the_vocabulary(centres, monkeypatch):
    from loopscope.numerics.model import lens

    monkeypatch.setattr(lens, "VOCABULARY_PER_CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 6, generator=generator)
    gain, rows_ = torch.rand(6, generator=generator), torch.randn(3, 6, generator=generator)
    head, norm = OutputHead(weight, scale=0.5), Normalisation(centres, 1e-6, gain)
    found = pushed_tokens(head, norm, rows_, 4, 30)
    unit = torch.nn.functional.normalize(rows_, dim=1)
    unit = unit - unit.mean(dim=1, keepdim=True) if centres else unit
    logits = 0.5 * (unit * gain) @ weight[:30].T
    assert torch.equal(found.up, logits.topk(4).indices)
    assert torch.equal(found.down, (-logits).topk(4).indices)
    assert torch.allclose(found.down_logits, logits.gather(1, found.down))


def test_a_matched_control_is_the_nearest_living_latent_that_is_no_candidate():
    rate = np.array([0.10, 0.11, 0.5, 0.10, 0.02])
    living = np.array([True, True, True, False, True])
    one = np.linspace(1.0, 1.1, 5)
    covariates = Covariates(rate, np.ones(5), np.ones(5) * one, living)
    assert nearest_matched(covariates, np.array([0])).tolist() == [1]
    unknown = Covariates(np.full(5, np.nan), np.ones(5), one, living)
    assert nearest_matched(unknown, np.array([0])).size == 0
