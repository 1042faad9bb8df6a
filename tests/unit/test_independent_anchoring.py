"""Drift and ablation by a second script, on generated points: it agrees, or says what is off."""

import json

import numpy as np
import pytest

from loopscope.specs.artifacts.ablation import ABLATION
from loopscope.specs.artifacts.drift import DRIFT
from loopscope.specs.payloads.drift import ANCHORS
from loopscope.worker.stages.ablation import stage as ablation
from loopscope.worker.stages.ablation.chosen import Cut
from loopscope.worker.stages.drift.results import (
    Curves,
    outcomes_of,
    write_curves,
    write_points,
    write_samples,
)
from loopscope.worker.stages.tables import write_document
from tests.acceptance.independent_anchoring import compared
from tests.acceptance.independent_verdict import Agreement

DISTANCES = (0, 10, 100, 1000)
OPENINGS, FILLERS = 20, 8


@pytest.fixture
def bundle(tmp_path):
    """A bundle's two folders, of effects that fade or do not, and of losses."""
    generator = np.random.default_rng(4)
    write_drift(tmp_path / "drift", generator)
    write_losses(tmp_path / "ablation", generator)
    return tmp_path


def write_drift(folder, generator):
    folder.mkdir()
    points = []
    for anchor, near in zip(ANCHORS, (0.4, 0.02, 0.1, 0.3), strict=True):
        places = [(d, False) for d in DISTANCES] + [(DISTANCES[-1], True)] * (near == 0.4)
        for opening in range(OPENINGS):
            for distance, again in places:
                left = 1.0 if anchor == "steering" or again else 1 / (1 + distance / 50)
                kl = near * left * generator.uniform(0.7, 1.3)
                points.append({
                    "opening": opening, "filler": opening % FILLERS, "anchor": anchor,
                    "distance": distance, "again": again, "kl": kl, "concept": 0.1 + kl / 10,
                    "concept_unanchored": 0.1,
                })  # fmt: skip
    samples = [
        {
            "opening": opening, "anchor": anchor, "temperature": heat, "text": "x",
            "wander": generator.random(), "surprisal": 2.0 + generator.random(),
            "concept_mass": generator.random() / 10, "concept": float(generator.random() < 0.3),
        }
        for anchor in ("none", *ANCHORS)
        for heat in (0.5, 1.0)
        for opening in range(OPENINGS)
    ]  # fmt: skip
    ids = [f"opening-{n:04d}" for n in range(OPENINGS)]
    curves = Curves(points, DISTANCES, OPENINGS)
    write_points(folder, points, ids)
    write_curves(folder, curves)
    write_samples(folder, samples, ids, np.arange(OPENINGS))
    write_document(folder, DRIFT, {"outcomes": outcomes_of(curves)})


def write_losses(folder, generator):
    folder.mkdir()
    both = {"coarse": [1], "fine": [2]}
    cuts = [Cut(part, None, 0, both, both) for part in ("anchor", "children", "both")]
    cuts += [
        Cut(part, control, draw, both, both)
        for control in ("alikeInText", "alikeOnPrompts")
        for draw in range(3)
        for part in ("anchor", "children", "both")
    ]
    losses = [
        {
            "prompt": prompt, "cut": number, "kl": 0.1, "removed": 1.0, "clean": -3.0,
            "loss": generator.normal(0.1 if cut.control else 0.3, 0.4),
        }
        for prompt in range(40)
        for number, cut in enumerate(cuts)
    ]  # fmt: skip
    ids = [f"p{n:02d}" for n in range(40)]
    ablation._write_losses(folder, losses, cuts, ids)
    contrasts = ablation._contrasts(losses, cuts, 40, None)
    document = {
        "answers": ablation._answers(losses, cuts, contrasts),
        "contrasts": [ablation._contrast_record(one) for one in contrasts],
    }
    write_document(folder, ABLATION, document)


def test_a_script_that_shares_no_code_agrees(bundle):
    rows = compared(bundle, Agreement()).rows
    assert {kind.partition(":")[0] for kind in rows} == {"drift", "ablation"}
    assert rows["drift: half-lives, share"][0] == 6, "three of four anchors, in both outcomes"
    assert rows["ablation: contrasts"][0] == 9


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("drift/drift.json", lambda told: told["outcomes"][0].update(half_life=51.0)),
        ("drift/drift.json", lambda told: told["outcomes"][3].update(p=0.001)),
        ("ablation/ablation.json", lambda told: told["answers"][1].update(loss=0.5)),
        ("ablation/ablation.json", lambda told: told["contrasts"][2].update(low=-1.0)),
    ],
)
def test_a_number_that_is_off_is_noticed(bundle, file, change):
    path = bundle / file
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(AssertionError):
        compared(bundle, Agreement())
