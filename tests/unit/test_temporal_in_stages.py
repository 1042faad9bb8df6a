"""A temporal dictionary in the stages: its rows are read in their texts, from BOS on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopscope.numerics.dictionaries.sparse import encode
from loopscope.numerics.steering.reading import residual_of
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.evidence import stage as evidence
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from loopscope.worker.stages.question import stage as question
from loopscope.worker.stages.tables import read_sparse
from tests.artifact_world import evidence_payload, mapping_payload, question_payload
from tests.stage_world import (
    HOOK,
    NEUTRAL,
    TARGET,
    World,
    capture_payload,
    contents,
    interrupted_and_resumed,
    table,
)
from tests.unit.test_numerics_dictionary import random_dictionary

COARSE, FINE = 24, 48


@pytest.fixture
def world(rope_model, tmp_path):
    made = World(rope_model, tmp_path)
    width = rope_model.d_model
    made.dictionaries = {
        name: random_dictionary("temporal", width, latents)
        for name, latents in (("c", COARSE), ("f", FINE))
    }
    return made


def captured(world, **changes):
    asked = capture_payload(calibrationText=[*NEUTRAL, " ".join(TARGET)], maxTokens=9, **changes)
    world.run(capture, asked, "capture", "capture")
    return asked


def decompose(world, asked, name="c", **changes):
    payload = {
        "aggregation": "last", "splits": ["discover"] * 8, "capture": {"digest": "c"},
        "dictionary": {"identity": name}, "captured": asked, **changes,
    }  # fmt: skip
    return payload, world.run(decomposition, payload, f"decomposition-{name}", name)


def expected(world, tokens, name="c"):
    """Return the activations of every token but BOS, of the whole text as Hugging Face has it."""
    states = residual_of(world.model.causal, world.model.place(HOOK), tokens)
    dictionary = world.dictionaries[name]
    return encode(dictionary, dictionary.in_context(states), 100, 100).toarray()[1:]


@pytest.mark.parametrize("positions", ["last", "all", {"index": -2}])
def test_a_prompt_is_read_as_it_stands_in_its_whole_text(world, positions):
    prompts = [text for text in TARGET + NEUTRAL if " " in text]
    changed = [{"id": text, "text": text, "condition": "target"} for text in prompts]
    changed[-2:] = [{**one, "condition": "neutral"} for one in changed[-2:]]
    asked = captured(world, positions=positions, prompts=changed)
    aggregation = "max" if positions == "all" else "last"
    _, (folder, metrics) = decompose(
        world, asked, splits=["discover"] * len(prompts), aggregation=aggregation
    )
    found = read_sparse(folder / "activations.safetensors")[0].toarray()
    for number, text in enumerate(prompts):
        each = expected(world, world.model.encode(text))
        own = each.max(axis=0) if positions == "all" else each[-1 if positions == "last" else -2]
        np.testing.assert_allclose(found[number], own, rtol=1e-4, atol=1e-4)
    (share,) = metrics["preflights"].values()
    assert share["measured"] > 0.99


def test_calibration_text_is_read_piece_by_piece_with_what_it_predicts(world):
    _, (folder, metrics) = decompose(world, captured(world))
    pieces = []
    for text in [*NEUTRAL, " ".join(TARGET)]:
        bos, *tokens = world.model.encode(text)
        pieces += [[bos, *tokens[start : start + 9]] for start in range(0, len(tokens), 9)]
    assert len(pieces) > len(NEUTRAL) + 1, "one text is cut"
    each = np.concatenate([expected(world, tokens) for tokens in pieces])
    assert metrics["text_tokens"] == len(each)
    np.testing.assert_allclose(table(folder / "features.parquet")["text_rate"], (each > 0).mean(0))
    dictionary, rows, rebuilt = world.dictionaries["c"], [], []
    for tokens in pieces:
        states = residual_of(world.model.causal, world.model.place(HOOK), tokens)
        read = dictionary.in_context(states)[1:]
        rows.append(states[1:])
        rebuilt.append(dictionary.reconstruct(read, encode(dictionary, read, 100, 100)))
    x, again = torch.cat(rows), torch.cat(rebuilt)
    spread = (x - x.mean(dim=0)).square().sum()
    assert metrics["text_fvu"] == pytest.approx(
        float((x - again).square().sum() / spread), rel=1e-3
    )


def test_a_stopped_decomposition_goes_on_to_the_same_bytes(world):
    payload, (folder, _) = decompose(world, captured(world))
    assert interrupted_and_resumed(world, decomposition, payload, 7) == contents(folder)


def test_mapping_evidence_and_a_question_read_as_the_decomposition_did(world):
    asked = captured(world)
    for name in "cf":
        decompose(world, asked, name)
    pair = {"coarse": {"identity": "c"}, "fine": {"identity": "f"}}
    world.run(geometry, pair, "geometry", "geometry")
    world.run(mapping, mapping_payload([0, 1]), "mapping", "mapping")
    shown = {**evidence_payload(everything=False), "positions": "last"}
    _, metrics = world.run(evidence, shown, "evidence", "evidence")
    assert metrics["firings"] > 0 and metrics["largest_difference"] < 1e-4
    folder, _ = world.run(question, question_payload(world, steered=False), "question", "q")
    found = table(folder / "question_activations.parquet")
    tokens = world.model.encode(TARGET[0])
    for side, name, latents in (("coarse", "c", [0]), ("fine", "f", [0, 3])):
        own = np.zeros((len(tokens) - 1, len(latents)))
        for s, latent, place, value in zip(*found.values(), strict=True):
            if s == side:
                own[place - 1, latents.index(latent)] = value
        np.testing.assert_allclose(
            own, expected(world, tokens, name)[:, latents], rtol=1e-4, atol=1e-4
        )
