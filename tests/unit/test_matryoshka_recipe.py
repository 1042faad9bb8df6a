"""The recipe of the embedded dictionaries trains a Matryoshka one; its prefixes are read."""

import json
import sys

import numpy as np
import pytest
import torch

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.files import HashMemo
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.worker.dictionaries import load_dictionary
from tests.tree import ROOT

RECIPES = ROOT / "examples" / "dictionaries"
WIDTHS = (8, 16, 32)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A folder that the recipe made of 2,000 rows with 20 directions in them, and held-out rows."""
    work = tmp_path_factory.mktemp("work")
    draw = np.random.default_rng(0)
    directions = draw.normal(size=(20, 16))
    active = (draw.random((2200, 20)) < 0.1) * draw.uniform(1, 2, (2200, 20))
    rows = (active @ directions + 0.05 * draw.normal(size=(2200, 16))).astype(np.float32)
    np.save(work / "train.npy", rows[:2000])
    np.save(work / "heldout.npy", rows[2000:])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        known = set(sys.modules)
        import train
        from subjects import SUBJECTS

        recipe = train.Matryoshka(d_sae=WIDTHS[-1], seed=3, k=4, epochs=2, batch=50, widths=WIDTHS)
        folder = train.run_matryoshka(SUBJECTS["gemma"], work, recipe)
        for name in set(sys.modules) - known:  # siblings of the script have everyday names
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(RECIPES)):
                del sys.modules[name]
    return folder, rows[2000:]


@pytest.mark.parametrize("width", WIDTHS)
def test_each_prefix_is_a_dictionary_with_the_numbers_that_were_measured(shipped, width, tmp_path):
    folder, rows = shipped
    named = {"path": str(folder)} | ({} if width == WIDTHS[-1] else {"prefix": width})
    dictionary = load_dictionary(describe_dictionary(named, memo=HashMemo(tmp_path / "m")).ref)
    assert dictionary.w_dec.shape == (width, 16)
    active = encode(dictionary, torch.from_numpy(rows), len(rows), width)
    measured = json.loads((folder / "training.json").read_text())["heldout_by_prefix"][str(width)]
    assert (active > 0).sum() / len(rows) == pytest.approx(measured["l0"], rel=0.02)


def test_a_wider_prefix_leaves_less_unexplained(shipped):
    folder, _ = shipped
    found = json.loads((folder / "training.json").read_text())["heldout_by_prefix"]
    unexplained = [found[str(width)]["fvu"] for width in WIDTHS]
    assert unexplained == sorted(unexplained, reverse=True)
    assert unexplained[-1] < 0.9
