"""The gate at a stored setting is the gate of a mapping that is run with it."""

import json

import numpy as np
import pandas
import pytest
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.specs.artifacts.decomposition import FEATURES
from loopscope.specs.artifacts.mapping import GATE, GATE_SETTINGS
from loopscope.specs.rules import Gate, Selection
from loopscope.views.gate_sensitivity import gate_by_settings
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from tests.stage_world import NEUTRAL, TARGET, World, capture_payload

COARSE, FINE = 150, 450
SELECTION = {"minSelectivity": 0.3, "minFiringRateTarget": 0.2, "maxFiringRateNeutral": 0.9}
WORDS = ("old", "new", "quiet", "cold", "small", "large", "red", "blue", "long", "short", "warm")


@pytest.fixture(scope="module")
def world(rope_model, tmp_path_factory):
    """Random dictionaries in few dimensions, whose fine rows lie near coarse ones."""
    made = World(rope_model, tmp_path_factory.mktemp("world"))
    texts = [(f"{word} {text}", "target") for word in WORDS for text in TARGET[:2]]
    texts += [(f"{word} {text}", "neutral") for word in WORDS for text in NEUTRAL[:2]]
    prompts = [
        {"id": f"p{n}", "text": text, "condition": condition}
        for n, (text, condition) in enumerate(texts)
    ]
    payload = capture_payload(prompts=prompts, calibrationText=[*TARGET, *NEUTRAL])
    made.run(capture, payload, "capture", "capture")
    draw = torch.Generator().manual_seed(4)
    width = rope_model.d_model
    coarse = torch.randn(COARSE, width, generator=draw)
    near = coarse[torch.arange(FINE) % 60]
    fine = near + 1.3 * torch.randn(FINE, width, generator=draw)
    for name, rows in (("c", coarse), ("f", fine)):
        unit = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        bias = torch.full((len(rows),), -0.4)
        made.dictionaries[name] = Standard(
            unit.T.contiguous(), bias, unit, torch.zeros(width), apply_b_dec_to_input=False
        )
        given = {
            "capture": {"digest": "c"}, "dictionary": {"identity": name},
            "splits": ["discover"] * len(prompts), "aggregation": "last",
        }  # fmt: skip
        made.run(decomposition, given, f"decomposition-{name}", name)
    pair = {"coarse": {"identity": "c"}, "fine": {"identity": "f"}}
    made.run(geometry, pair, "geometry", "geometry")
    return made


def mapped(world, name, *, rule="cosine", cosine=0.4, correlation=0.2, q=1.0, **gate):
    """Return the gate and the folder of a mapping with these settings."""
    selection = Selection(**{**SELECTION, "maxQ": q})
    features = pandas.read_parquet(world.folder / "decomposition-c" / FEATURES.name)
    candidates = selection.candidates({k: v.tolist() for k, v in features.items()})
    sides = {
        side: {"digest": which, "dictionary": {"identity": which}}
        for side, which in (("coarse", "c"), ("fine", "f"))
    }
    payload = {
        "capture": {"digest": "c"}, "geometry": {"digest": "g"},
        "coarse": {**sides["coarse"], "candidates": candidates}, "fine": sides["fine"],
        "selection": selection.canonical(), "minCosine": cosine, "partialCosine": 0.1,
        "minCorrelation": correlation, "topK": 2, "permutations": 0, "seed": 0,
        "gate": {
            **Gate(resamples=20, rule=rule, minSubfeatures=2, minFineSelectivity=0.1).canonical(),
            **gate,
        },
    }  # fmt: skip
    folder, _ = world.run(mapping, payload, name, name)
    return json.loads((folder / GATE.name).read_text()), folder


@pytest.mark.parametrize(
    ("rule", "others"),
    [
        ("cosine", [{"cosine": 0.3}, {"cosine": 0.5}, {"q": 0.2}, {"cosine": 0.25, "q": 0.05}]),
        ("strict", [{"cosine": 0.3}, {"correlation": 0.5}, {"correlation": 0.0, "q": 0.2}]),
    ],
)
def test_every_setting_gives_what_a_mapping_with_it_gives(world, rule, others):
    gate, folder = mapped(world, f"{rule}-own", rule=rule, sensitivity=True)
    table = pandas.read_parquet(folder / GATE_SETTINGS.name)
    declared = {"minCosine": 0.4, "minCorrelation": 0.2, "maxQ": 1.0}
    found = gate_by_settings(gate, table, declared)
    assert gate["anchors"] and len(found) == len(table) and len(table) > 40
    told = set()
    for number, changes in enumerate([{}, *others]):
        real, _ = mapped(world, f"{rule}-{number}", rule=rule, **changes)
        at = {"cosine": 0.4, "correlation": 0.2, "q": 1.0, **changes}
        place = next(
            n for n, one in enumerate(found)
            if (one.min_cosine, one.min_correlation, one.max_q) == tuple(at.values())
        )  # fmt: skip
        said = found[place].at(2)
        assert (said.verdict, said.anchor) == (real["verdict"], real["steered"])
        row = table.iloc[place]
        assert row["candidates"].tolist() == [one["coarse"] for one in real["anchors"]]
        counts = [len(one["children"]) for one in real["anchors"]]
        assert row["children_of"].tolist() == counts
        steered = [one["children"] for one in real["anchors"] if one["steered"]]
        assert said.children == frozenset(steered[0] if steered else ())
        for column, value in (
            ("best_count", real["best_count"]),
            ("mean_rank", real["mean_rank"]),
            ("percentile", real["percentile"]),
            ("null_anchors", real["null"]["anchors"]),
            ("control_p", real["control"]["p"]),
            ("needed", real["selection"]["needed"]),
        ):
            assert row[column] == pytest.approx(np.nan if value is None else value, nan_ok=True)
        told.add((said.verdict, tuple(counts), row["percentile"]))
    assert len(told) > 2


def test_without_the_field_there_is_no_such_table_and_the_same_gate(world):
    plain, folder = mapped(world, "plain")
    asked, _ = mapped(world, "asked", sensitivity=True)
    assert plain == asked and not (folder / GATE_SETTINGS.name).exists()


def test_a_cosine_below_what_the_geometry_lists_has_no_table(world):
    _, folder = mapped(world, "low", cosine=0.15, sensitivity=True)
    assert not (folder / GATE_SETTINGS.name).exists()
