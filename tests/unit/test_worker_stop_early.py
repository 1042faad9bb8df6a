"""A steering that stops early: what it leaves, and that it does so again after a stop."""

import json

import pytest

from loopscope.numerics.verdict import looks
from loopscope.numerics.verdict.looks import Look
from loopscope.numerics.verdict.sequential import WordE
from loopscope.specs.stopping import blocks_of
from loopscope.worker.stages.steering import generating, looking
from loopscope.worker.stages.steering import stage as steering
from tests.stage_world import contents, interrupted_and_resumed, steering_payload, table

TEXTS = ["the people walked to", "a child liked the", "we saw old", "the garden in", "old bread"]
KEYS = ("prompt_id", "arm", "strength", "sample")


def payload(**changes):
    return steering_payload(
        openings=[{"id": f"o{i}", "text": text} for i, text in enumerate(TEXTS)],
        strengths=[2.0], samplesPerPrompt=1, **changes,
    )  # fmt: skip


@pytest.fixture
def decided_at(monkeypatch):
    """Let a look say a word from so many openings on."""

    def decide(n):
        def said(run, openings, *rest):
            e = WordE(41.0, 1.0, 1.0) if openings >= n else WordE(1.0, 1.0, 1.0)
            return Look(openings, "Supported" if openings >= n else "Inconclusive", e)

        monkeypatch.setattr(looking, "look", said)
        monkeypatch.setattr(looks, "look", said)

    return decide


def rows(folder):
    samples = table(folder / "steering_samples.parquet")
    keys = zip(*(samples[key] for key in KEYS), strict=True)
    return dict(zip(keys, samples["text"], strict=True))


def test_what_is_steered_is_the_blocks_up_to_the_look_that_decides(steering_world, decided_at):
    whole, _ = steering_world.run(steering, payload(), "whole", "whole")
    decided_at(4)
    asked = payload(stopEarly={"every": 2})
    folder, metrics = steering_world.run(steering, asked, "early", "early")

    first, second, _ = blocks_of(asked["openings"], {"every": 2}, 0)
    steered = {f"o{place}" for place in first + second}
    found, all_rows = rows(folder), rows(whole)
    assert {key[0] for key in found} == steered
    assert found == {key: text for key, text in all_rows.items() if key[0] in steered}
    shifts = table(folder / "distribution_shift.parquet")
    assert set(shifts["prompt_id"]) == steered
    assert (metrics["n"], metrics["n_declared"], metrics["looks"]) == (4, 5, 2)
    stopping = json.loads((folder / "verdict.json").read_text())["stopping"]
    assert stopping["declared"] == 5
    assert [one["openings"] for one in stopping["looks"]] == [2, 4]
    assert stopping["looks"][-1]["e"]["supported"] == 41.0


def test_a_run_in_which_no_look_decides_has_the_texts_of_one_that_could_not_stop(steering_world):
    whole, plain = steering_world.run(steering, payload(), "whole", "whole")
    folder, metrics = steering_world.run(
        steering, payload(stopEarly={"every": 2}), "early", "early"
    )
    assert list(rows(folder).items()) == list(rows(whole).items())
    assert (metrics["n"], metrics["n_declared"], metrics["looks"]) == (5, 5, 3)
    assert "n_declared" not in plain
    assert "stopping" not in json.loads((whole / "verdict.json").read_text())


@pytest.mark.parametrize("stop_at", [3, 12])
def test_a_run_that_was_interrupted_stops_after_the_same_block(
    steering_world, decided_at, monkeypatch, stop_at
):
    monkeypatch.setattr(generating, "ROWS_PER_BATCH_MAX", 7)
    decided_at(4)
    asked = payload(stopEarly={"every": 2})
    undisturbed = contents(steering_world.run(steering, asked)[0])
    assert interrupted_and_resumed(steering_world, steering, asked, stop_at) == undisturbed
