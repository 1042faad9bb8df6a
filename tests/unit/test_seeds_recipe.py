"""The recipe of the embedded dictionaries trains pairs of other seeds, each in its own folder."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tree import ROOT

RECIPES = ROOT / "examples" / "dictionaries"


@pytest.fixture
def train(monkeypatch):
    """The recipe as a module, with dictionaries that are trained in a moment."""
    monkeypatch.syspath_prepend(str(RECIPES))
    known = set(sys.modules)
    import train

    tiny = {
        "coarse": train.Recipe(d_sae=8, seed=1, k=2, epochs=1, batch=50),
        "fine": train.Recipe(d_sae=16, seed=2, k=2, epochs=1, batch=50),
    }
    monkeypatch.setattr(train, "RECIPES", tiny)
    yield train
    for name in set(sys.modules) - known:  # siblings of the script have everyday names
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(RECIPES)):
            del sys.modules[name]


@pytest.fixture
def work(tmp_path):
    rows = np.random.default_rng(0).normal(size=(600, 12)).astype(np.float32)
    np.save(tmp_path / "train.npy", rows[:500])
    np.save(tmp_path / "heldout.npy", rows[500:])
    return tmp_path


def test_no_two_dictionaries_of_any_pairs_share_a_seed(train):
    recipes = [one for pair in range(5) for one in train.recipes(pair).values()]
    assert len({one.seed for one in recipes}) == len(recipes)
    assert train.recipes(0) == train.RECIPES


def trained(train, work, pair):
    train.run_pair(train.SUBJECTS["gemma"], pair, work, work, ["coarse", "fine"], "train")
    return {side: load_file(work / "pairs" / str(pair) / side / "sae_weights.safetensors")
            for side in ("coarse", "fine")}  # fmt: skip


def test_pairs_differ_and_leave_the_shipped_one_alone(train, work):
    shipped = (RECIPES / "coarse" / "sae_weights.safetensors").read_bytes()
    one, two = (trained(train, work, pair) for pair in (1, 2))
    for side, latents in (("coarse", 8), ("fine", 16)):
        assert one[side]["W_dec"].shape == (latents, 12)
        assert not np.array_equal(one[side]["W_dec"], two[side]["W_dec"])
    assert (RECIPES / "coarse" / "sae_weights.safetensors").read_bytes() == shipped


def test_a_pair_that_was_measured_is_not_trained_again(train, work):
    trained(train, work, 1)
    own = work / "pairs" / "1"
    for side in ("coarse", "fine"):
        (own / side / "training.json").write_text(json.dumps({}))
    before = (own / "coarse" / "sae_weights.safetensors").stat().st_mtime_ns
    trained(train, work, 1)
    assert (own / "coarse" / "sae_weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("words", [["--seed", "0"], ["--tokens", "1000"]])
def test_the_shipped_pair_is_not_made_by_accident(train, monkeypatch, tmp_path, words):
    monkeypatch.setattr(sys, "argv", ["train.py", "all", "--work", str(tmp_path), *words])
    with pytest.raises(SystemExit):
        train.arguments()
