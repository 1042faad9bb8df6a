"""``replicate``: the axes that it declares, what it stores, and how two runs are held together."""

import json

import numpy as np
import pytest

from loopscope.numerics.replication.effect import (
    Estimate,
    paired_equivalence,
    unpaired_equivalence,
)
from loopscope.numerics.replication.firing import rounded
from loopscope.numerics.replication.rows import row_relation
from loopscope.specs.replication import distance, replicating_sweep
from loopscope.specs.sweep import cells, value_at
from loopscope.views.replication.replication import replication, replication_sentences
from loopscope.views.replication.run import run_of
from tests.unit.test_compare import FRANCE, ROME, two

__all__ = ["two"]

SPEC = {
    "model": {"name": "m", "dtype": "float32"},
    "hook": "blocks.3.hook_resid_post",
    "prompts": {
        "target": {"texts": ["a", "b", "c", "d"], "file": "t.txt"},
        "neutral": {
            "texts": ["e", "f", "g", "h"],
            "groups": {"labels": ["x", "x", "y", "y"], "file": "g.txt"},
        },
    },
    "dictionaries": {"coarse": {"path": "/c"}, "fine": {"path": "/f"}},
    "splits": {"seed": 0},
    "steering": {"minDifference": 0.1, "sampling": {"seed": 4}},
    "damage": {},
}


def tried(axis, *given, known=None):
    """The specs of a sweep's cells, by the value's name."""
    document = replicating_sweep("france", "default", SPEC, axis, given, known or {})
    return {cell.suffix: cell.spec for cell in cells(document["spec"])}


def test_seeds_are_new_ones_and_the_same_everywhere():
    found = tried("seed")
    assert list(found) == ["s5", "s6", "s7"]
    assert found["s6"]["splits"]["seed"] == found["s6"]["steering"]["sampling"]["seed"] == 6


def test_the_own_precision_is_not_tried_again():
    found = tried("dtype")
    assert {one["model"]["dtype"] for one in found.values()} == {"float16", "bfloat16"}
    assert distance("dtype", SPEC, found["bfloat16"]) > distance("dtype", SPEC, found["float16"])


def test_layers_are_the_neighbours_and_the_dictionaries_may_be_read_there():
    found = tried("layer")
    assert {one["hook"] for one in found.values()} == {
        "blocks.2.hook_resid_post", "blocks.4.hook_resid_post",
    }  # fmt: skip
    assert all(value_at(one, "dictionaries.fine.usableAt") == "any" for one in found.values())
    assert distance("layer", SPEC, tried("layer", "9")["block-9"]) == 6


def test_halves_of_the_prompts_share_no_text_and_keep_groups_together():
    found = tried("prompts")
    odd, even = (found[half]["prompts"] for half in ("odd", "even"))
    assert odd["target"] == {"texts": ["a", "c"]} and even["target"] == {"texts": ["b", "d"]}
    assert odd["neutral"] == {"texts": ["e", "f"], "groups": {"labels": ["x", "x"]}}
    assert even["neutral"]["texts"] == ["g", "h"]


def test_pairs_of_dictionaries_are_named():
    found = tried("dictionary", "two:/pairs/2/")
    assert found["two"]["dictionaries"]["fine"] == {"path": "/pairs/2/fine"}


def test_what_no_verdict_rests_on_is_left_out_and_what_was_tried_before_stays():
    assert all("damage" not in one for one in tried("dtype").values())
    known = {"bfloat16": {"model.dtype": "bfloat16"}}
    assert set(tried("dtype", "float16", known=known)) == {"bfloat16", "float16"}


@pytest.mark.parametrize(
    ("axis", "given", "words"),
    [
        ("dtype", ["int8"], "expected float32"),
        ("dtype", ["float32"], "its own"),
        ("seed", ["one"], "no number"),
        ("layer", ["-1"], "no number of a block"),
        ("prompts", ["third"], "odd or even"),
        ("dictionary", [], "NAME:FOLDER"),
        ("dictionary", ["folder"], "NAME:FOLDER"),
        ("model", ["Big:folder"], "lower-case"),
    ],
)
def test_a_value_that_an_axis_does_not_have_is_refused_with_what_it_has(axis, given, words):
    message = "own value" if words == "its own" else words
    with pytest.raises(ValueError, match=message):
        tried(axis, *given)


def test_a_sweep_is_not_replicated_as_a_whole():
    with pytest.raises(ValueError, match="one of its cells"):
        replicating_sweep("s", "default", {**SPEC, "matrix": {}}, "seed", (), {})


def test_equivalence_of_shared_openings_is_that_of_two_one_sided_tests():
    scipy_stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    first = generator.normal(0.2, 0.1, 400)
    second = first + generator.normal(0.02, 0.1, 400)
    found = paired_equivalence("multi-fine", first, second, 0.05)
    difference = second - first
    p_low = scipy_stats.ttest_1samp(difference, -0.05, alternative="greater").pvalue
    p_high = scipy_stats.ttest_1samp(difference, 0.05, alternative="less").pvalue
    assert found.difference == pytest.approx(difference.mean())
    assert found.p == pytest.approx(max(p_low, p_high), rel=0.3)
    assert found.word == "same effect" and found.n == 400


def test_a_pair_says_more_than_the_same_intervals_apart():
    generator = np.random.default_rng(1)
    first = generator.normal(0.0, 0.5, 60)
    second = first + 0.01
    paired = paired_equivalence("c", first, second + generator.normal(0, 0.01, 60), 0.1)
    half = 1.96 * 0.5 / np.sqrt(60)
    ends = [Estimate(x.mean(), x.mean() - half, x.mean() + half) for x in (first, second)]
    assert paired.word == "same effect"
    assert unpaired_equivalence("c", *ends, 0.1).word == "not known"


@pytest.mark.parametrize(
    ("shift", "spread", "word"),
    [(0.0, 0.02, "same effect"), (0.5, 0.05, "another effect"), (0.05, 1.0, "not known")],
)
def test_an_effect_is_the_same_another_or_not_known(shift, spread, word):
    generator = np.random.default_rng(2)
    first = generator.normal(0, 0.1, 40)
    second = first + shift + spread * generator.normal(0, 1, 40).clip(-2, 2)
    assert paired_equivalence("c", first, second, 0.1).word == word


def test_false_equivalence_is_as_rare_as_its_level_says():
    generator = np.random.default_rng(3)
    said = [
        paired_equivalence("c", np.zeros(40), generator.normal(0.1, 0.2, 40), 0.1).word
        for _ in range(400)
    ]
    assert said.count("same effect") / len(said) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_a_precision_is_that_of_torch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(4).normal(size=1000).astype(np.float32)
    for name in ("bfloat16", "float16"):
        expected = torch.from_numpy(values).to(getattr(torch, name)).double().numpy()
        np.testing.assert_array_equal(rounded(values.astype(np.float64), name), expected)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda rows: rows, "same"),
        (lambda rows: rows - rows.mean(axis=1, keepdims=True), "centred"),
        (lambda rows: 2.5 * rows, "scaled"),
        (lambda rows: rows + np.arange(rows.shape[1]), "shifted"),
        (lambda rows: rows * (1 + 0.01 * np.sin(np.arange(rows.size)).reshape(rows.shape)),
         "rounded"),
        (lambda rows: rows[::-1], "other"),
    ],
)  # fmt: skip
def test_what_was_done_to_rows_is_told_from_the_rows(change, word):
    rows = np.random.default_rng(5).normal(0.3, 1, size=(20, 32))
    found = row_relation(rows, change(rows))
    assert found.word == word
    assert found.scale == (pytest.approx(2.5) if word == "scaled" else 1.0)


def test_runs_that_share_their_artifacts_have_the_same_bytes(two):
    from loopscope.views.experiment import ExperimentView

    state = two()
    first, second = (run_of(ExperimentView.load(state, key)) for key in (FRANCE, ROME))
    found = replication(first, second)
    assert found.answer == "same bytes" and found.holds and found.parted is None
    assert list(replication_sentences(found)) == ["rome beside france: same bytes."]


def test_a_run_without_a_stage_is_not_finished(two):
    from loopscope.views.experiment import ExperimentView

    state = two(stages=("capture", "coarse", "fine", "mapping"))
    first, second = (run_of(ExperimentView.load(state, key)) for key in (FRANCE, ROME))
    found = replication(first, second)
    assert found.answer == "not finished" and found.missing == ("steering",)


def test_the_command_stores_a_sweep_once_and_adds_to_it(loopscope, experiment):
    path = experiment()
    assert loopscope("apply", "-f", path)[0] == 0
    code, out, _ = loopscope("replicate", "x", "--axis", "dtype=bfloat16", "--no-run")
    assert code == 1 and "not finished" in out
    _, before, _ = loopscope("get", "experiment", "x-by-dtype", "-o", "json")
    assert json.loads(before)["metadata"]["labels"] == {"loopscope.dev/replicates": "x"}
    assert loopscope("replicate", "x", "--axis", "dtype=bfloat16", "--no-run")[0] == 1
    again = json.loads(loopscope("get", "experiment", "x-by-dtype", "-o", "json")[1])
    assert again["metadata"]["resourceVersion"] == json.loads(before)["metadata"]["resourceVersion"]
    loopscope("replicate", "x", "--axis", "dtype=float16", "--no-run")
    added = json.loads(loopscope("get", "experiment", "x-by-dtype", "-o", "json")[1])
    assert sorted(added["spec"]["matrix"]["dtype"]) == ["bfloat16", "float16"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x"], "is its own replication"),
        (["x", "--axis", "hue"], "expected one of seed"),
        (["x", "--axis", "seed=a"], "is no number"),
        (["x", "--axis", "batch=5"], "batch takes no values"),
        (["x", "--axis", "dictionary=y:/nowhere"], "no such file or folder"),
        (["nothing"], "no experiment named"),
        (["x", "y", "z"], "holds no spec.yaml"),
    ],
)
def test_what_cannot_be_replicated_is_refused_in_a_line(loopscope, experiment, words, told):
    assert loopscope("apply", "-f", experiment())[0] == 0
    code, _, err = loopscope("replicate", *words)
    assert code in (1, 2) and told in err


def test_a_name_that_is_taken_is_not_overwritten(loopscope, experiment, tmp_path):
    assert loopscope("apply", "-f", experiment())[0] == 0
    taken = experiment(text=lambda text: text.replace("name: x\n", "name: x-by-seed\n"))
    assert loopscope("apply", "-f", taken)[0] == 0
    code, _, err = loopscope("replicate", "x", "--axis", "seed", "--no-run")
    assert code != 0 and "another object" in err


def test_thresholds_are_read_from_a_dictionary_s_file_and_from_no_other_place(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from loopscope.inputs.thresholds import thresholds_of

    values = torch.tensor([0.5, 1.25, 3.0])
    for name, dtype in (("single", torch.float32), ("brain", torch.bfloat16)):
        (tmp_path / name).mkdir()
        tensors = {"W_enc": torch.zeros(2, 3), "threshold": values.to(dtype)}
        save_file(tensors, tmp_path / name / "sae_weights.safetensors")
        place = {"kind": "folder", "path": str(tmp_path / name)}
        assert thresholds_of({"source": place}).tolist() == values.tolist()
    np.savez(tmp_path / "params.npz", threshold=values.numpy())
    place = {"kind": "file", "path": str(tmp_path / "params.npz")}
    assert thresholds_of({"source": place}).tolist() == values.tolist()
    (tmp_path / "none").mkdir()
    save_file({"W_enc": torch.zeros(2, 3)}, tmp_path / "none" / "sae_weights.safetensors")
    assert thresholds_of({"source": {"kind": "folder", "path": str(tmp_path / "none")}}) is None
    assert thresholds_of({"source": {"kind": "folder", "path": str(tmp_path / "gone")}}) is None
    assert thresholds_of({"source": {"kind": "hub", "repo": "a/b", "revision": "c"}}) is None


def test_two_that_ask_for_the_same_at_once_are_both_answered(loopscope, experiment, tmp_path):
    from loopscope.controller.plan import replicating
    from loopscope.specs.keys import Key
    from loopscope.state.db import objects
    from loopscope.state.folder import open_state

    assert loopscope("apply", "-f", experiment())[0] == 0
    state = open_state(tmp_path / "state")
    key = Key("Experiment", "default", "x")
    with state.database.read() as connection:
        record = objects.get(connection, key)
    first = replicating.store_sweep(state, record, "dtype", [], now=1.0)
    with state.database.read() as connection:
        stored = objects.get(connection, first)
    document = replicating_sweep("x", "default", record.spec, "dtype", [], {})
    replicating._store(state, document, "the other's", tmp_path, first, None, 2.0)
    with state.database.read() as connection:
        assert objects.get(connection, first) == stored
