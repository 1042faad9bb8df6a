"""The gate with another minSubfeatures from the draws alone is the gate of a run with it."""

import json

import numpy as np
import pandas
import pytest

from loopscope.specs.artifacts.mapping import GATE, GATE_DRAWS
from loopscope.views.gate_sensitivity import GateRange, gate_by_min_subfeatures, steering_note
from loopscope.worker.stages.mapping import stage as mapping
from tests.artifact_world import mapping_payload, run_stages
from tests.stage_world import World


def told(folder):
    gate = json.loads((folder / GATE.name).read_text())
    return gate, pandas.read_parquet(folder / GATE_DRAWS.name)


@pytest.mark.parametrize("everything", [True, False], ids=["candidates", "no candidate"])
def test_every_count_gives_what_a_mapping_with_it_gives(rope_model, tmp_path, everything):
    world = World(rope_model, tmp_path)
    run_stages(world, everything=everything)
    gate, draws = told(tmp_path / "mapping")
    ranges = gate_by_min_subfeatures(gate, draws)
    assert ranges and ranges[-1].is_last
    for count in (1, 2, 3):
        payload = mapping_payload([0, 1] if everything else [])
        payload["gate"]["minSubfeatures"] = count
        folder, _ = world.run(mapping, payload, f"mapping-{count}", f"mapping-{count}")
        real, _ = told(folder)
        found = next(one for one in ranges if count <= one.high or one.is_last)
        assert (found.verdict, found.anchor) == (real["verdict"], real["steered"])


POWER = {"smallest_p": 1e-9, "tested": 16, "needed": 1, "top": 5, "prompts_needed": 9}


def made(**changes):
    """A gate with two anchors of 2 and 5 children, and ten halves that mostly say the same."""
    anchors = [
        {"coarse": 7, "selectivity": 0.9, "firing_rate_target": 0.9, "children": [1, 2]},
        {"coarse": 8, "selectivity": 0.8, "firing_rate_target": 0.9, "children": [1, 2, 3, 4, 5]},
    ]
    gate = {
        "verdict": "GO", "minSubfeatures": 2, "steered": 7, "anchors": anchors, "best_count": 5,
        "selection": POWER, "mean_rank": 90.0, "percentile": 99.0, "min_percentile": 95.0,
        "null": {"anchors": 500, "wanted": 500}, "control": {"p": 0.01},
        "stability": {"min_share": 0.8, "resamples": 10, "outcomes": {"stands out": 10}},
    }  # fmt: skip
    draws = pandas.DataFrame(
        {
            "source": ["resample"] * 10,
            "draw": range(10),
            "best_count": [5] * 7 + [3] * 3,
            "mean_rank": [90.0] * 10,
            "percentile": [99.0] * 10,
        }
    )
    return {**gate, **changes}, draws


def test_a_higher_count_moves_the_anchor_the_stability_and_the_answer():
    found = gate_by_min_subfeatures(*made())
    assert [(one.low, one.high, one.verdict, one.anchor) for one in found] == [
        (1, 2, "GO", 7),
        (3, 3, "GO", 8),
        (4, 5, "INCONCLUSIVE", 8),  # three of ten halves no longer reach it
        (6, 6, "NO-GO", 7),
    ]


def test_more_is_the_same_only_above_the_largest_count_of_a_wide_dictionary():
    gate, draws = made()
    gate["anchors"][1]["children"] = list(range(400))
    gate["best_count"] = 400
    draws["best_count"] = [400] * 7 + [300] * 3
    found = gate_by_min_subfeatures(gate, draws)
    assert [(one.low, one.high, one.verdict, one.anchor) for one in found] == [
        (1, 2, "GO", 7),
        (3, 300, "GO", 8),
        (301, 400, "INCONCLUSIVE", 8),
        (401, 401, "NO-GO", 7),
    ]
    assert [one.is_last for one in found] == [False, False, False, True]


def test_a_verdict_that_cannot_be_had_again_is_not_varied():
    gate, draws = made()
    assert gate_by_min_subfeatures(gate | {"verdict": "NO-GO"}, draws) == []
    assert gate_by_min_subfeatures(gate, draws.head(9)) == []
    assert gate_by_min_subfeatures(gate, draws.drop(columns="mean_rank")) == []
    without = {name: value for name, value in gate.items() if name != "selection"}
    assert gate_by_min_subfeatures(without, draws) == []


def test_halves_of_which_it_is_not_known_whether_they_could_choose_are_not_guessed():
    gate, draws = made()
    draws.loc[:1, ["best_count"]] = 0
    draws.loc[:1, ["mean_rank", "percentile"]] = np.nan
    gate["stability"] = {**gate["stability"], "outcomes": {"stands out": 8, "untestable": 1}}
    assert gate_by_min_subfeatures(gate, draws) == []
    gate["stability"]["outcomes"] = {"stands out": 8, "untestable": 2}
    assert gate_by_min_subfeatures(gate, draws)[0].verdict == "GO"


def test_a_run_s_steering_stands_only_for_its_anchor_and_where_the_policy_lets_it_run():
    gate, _ = made()
    own = frozenset({1, 2})
    same, other = GateRange(1, 2, "GO", 7, own), GateRange(3, 3, "GO", 8)
    assert steering_note(same, gate, "report") == steering_note(same, gate, "enforce") == ""
    assert "steers C-8: needs another steering run" in steering_note(other, gate, "report")
    fewer = GateRange(1, 2, "GO", 7, frozenset({1}))
    assert "other children: needs another steering run" in steering_note(fewer, gate, "report")
    failing = GateRange(6, 6, "NO-GO", 7, own)
    assert steering_note(failing, gate, "report") == ""
    assert "policy is enforce" in steering_note(failing, gate, "enforce")
    assert "needs another" in steering_note(same, gate | {"verdict": "NO-GO"}, "enforce")
    assert steering_note(GateRange(1, 3, "NO-GO", None), gate, "report") == ""
