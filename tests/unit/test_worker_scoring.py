"""A scoring by its stages: what the verdict rests on, what silences it, and what verify finds."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.scoring import check_scoring
from loopscope.specs.ratings import FORMAT
from loopscope.worker.stages.scores import stage as scores
from loopscope.worker.stages.scoring import stage as scoring
from loopscope.worker.stages.steering import stage as steering
from tests.stage_world import (
    OPENINGS,
    World,
    add_steering_inputs,
    contents,
    steering_payload,
    table,
)

IDS = [f"opening-{number:04d}" for number in range(len(OPENINGS))]
KEYS = ("prompt_id", "arm", "strength", "sample")


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    made = add_steering_inputs(World(rope_model, tmp_path_factory.mktemp("scoring")))
    made.openings = [{"id": name, "text": text} for name, text in zip(IDS, OPENINGS, strict=True)]
    work = steering_payload(openings=made.openings, maxNewTokens=4, strengthUnit="nextTokenKl",
                            strengths=[0.001])  # fmt: skip
    made.run(steering, work, "steering", "steering")
    return made


def rated(world, rating_of):
    rows = zip(*(table(world.folder / "steering/steering_samples.parquet")[k] for k in KEYS),
               strict=True)  # fmt: skip
    ratings = [
        {**dict(zip(KEYS, row, strict=True)), "rating": rating_of(*row)}
        for row in rows
        if rating_of(*row) is not None
    ]
    common = {"format": FORMAT, "experiment": "x", "steering": "0" * 64, "rater": "ada"}
    return json.dumps({**common, "date": "2026-11-30", "seed": 0, "ratings": ratings})


def scored(world, name, primary, **asked):
    """Run the outcomes, then the scoring; return its folder, document and metrics."""
    common = {"openings": world.openings, "steered": {"digest": "s"}}
    for outcome, own in asked.items():
        payload = {"outcome": outcome, "asked": own, "beside": {}, **common}
        digest = f"{name}-{outcome}"
        world.run(scores, payload, f"scores-{digest}", digest)
    payload = {
        "primary": primary, "minDifference": 0.15, "maxArmCosine": 0.98, **common,
        "scores": {outcome: {"digest": f"{name}-{outcome}"} for outcome in asked},
    }  # fmt: skip
    folder, metrics = world.run(scoring, payload, f"scoring-{name}", name)
    return folder, json.loads((folder / "scoring.json").read_text()), metrics


@dataclass
class Opened:
    """A bundle's files, read where the stages left them."""

    folders: tuple[Path, ...]

    def document(self, document):
        return next((json.loads(p.read_text()) for p in self._paths(document)), None)

    def table(self, found):
        paths = self._paths(found)
        return pyarrow.parquet.read_table(paths[0]).to_pandas() if paths else None

    def spec(self, _):
        return {"prompts": {"texts": OPENINGS}, "splits": {"seed": 0, "discover": 1.0,
                "calibrate": 0.0}}  # fmt: skip

    @property
    def experiment(self):
        return {"steering": {"minDifference": 0.15, "maxArmCosine": 0.98}}

    def _paths(self, file):
        return [folder / file.name for folder in self.folders if (folder / file.name).exists()]


def verified(world, folder):
    findings = Findings()
    check_scoring(Opened((world.folder / "steering", folder)), findings)
    return findings


def about_multi(opening, arm, strength, sample):
    """People call all texts of multi about the concept, and one text in four of the others."""
    return int(arm == "multi" or (IDS.index(opening) + sample) % 4 == 0)


def test_ratings_by_people_can_answer(world):
    folder, found, metrics = scored(
        world, "rated", "ratings", repetition={}, ratings={"sets": [rated(world, about_multi)]}
    )
    assert metrics["primary"] == found["primary"] == "ratings"
    by_name = {one["contrast"]: one["estimate"] for one in found["contrasts"]}
    expected = 1 - np.mean([about_multi(o, "coarse", 0, s) for o in IDS for s in (0, 1)])
    assert by_name["multi-coarse"] == pytest.approx(expected)
    assert {"lexicon", "compression", "distinct_2"} <= {o["outcome"] for o in found["secondary"]}
    assert "rating" not in {one["outcome"] for one in found["secondary"]}
    assert metrics["unknown"] == 0
    kappas = {(one["outcome"], one["other"]) for one in found["agreement"]}
    assert kappas == {("concept", "rating")}
    assert not verified(world, folder).differences


def test_texts_that_nobody_rated_are_counted_and_left_out(world):
    def some(opening, arm, strength, sample):
        return about_multi(opening, arm, strength, sample) if sample == 0 else None

    folder, found, metrics = scored(
        world, "partly", "ratings", ratings={"sets": [rated(world, some)]}
    )
    samples = table(world.folder / "steering/steering_samples.parquet")["sample"]
    assert metrics["unknown"] == sum(samples)
    assert found["n"] == len(IDS)
    assert not verified(world, folder).differences


def test_an_embedding_that_people_do_not_bear_out_is_silent(world, monkeypatch):
    pytest.importorskip("all_minilm_l6_v2", reason="the extra embedding is not installed")
    asked = {"concept": ["France"], "siblings": ["Japan"], "threshold": 0.0}
    sets = [rated(world, about_multi)]
    folder, found, metrics = scored(
        world, "embedded", "embedding", embedding=asked, ratings={"sets": sets}
    )
    assert metrics["verdict"] == "NotTestable"
    assert "embedding may not answer" in found["reason"]
    assert "20 of each are needed" in found["validation"]["doubt"]
    assert found["p"] is None
    assert not verified(world, folder).differences


def test_a_changed_number_of_a_text_is_noticed(world):
    folder, _, _ = scored(
        world, "changed", "ratings", repetition={}, ratings={"sets": [rated(world, about_multi)]}
    )
    path = folder / "text_outcomes.parquet"
    found = pyarrow.parquet.read_table(path).to_pandas()
    of_multi = (found["outcome"] == "rating") & (found["arm"] == "multi")
    found.loc[found.index[of_multi][0], "value"] = 0.0
    found.to_parquet(path)
    assert verified(world, folder).differences


def test_equal_inputs_give_equal_bytes(world):
    first, again = (scored(world, f"same-{n}", "concept", repetition={})[0] for n in (1, 2))
    assert contents(first) == contents(again)
