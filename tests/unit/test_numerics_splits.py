"""What selects cannot be given what confirms: the type checker says so, and so does a run."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from loopscope.numerics.latents.features import held_out_statistics, latent_statistics
from loopscope.numerics.latents.mapping import ActivationColumns
from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows, split_rows
from tests.rows import discover_rows, held_out_rows

ROOT = Path(__file__).parents[2]
ACTIVATIONS = scipy.sparse.csr_array(np.arange(14, dtype=np.float32).reshape(7, 2))
CONDITION = np.array(["target", "neutral", "hard-negative"] * 2 + ["target"])
SPLIT = np.array(["discover", "test", "discover", "test", "discover", "test", "discover"])
SNIPPET = """
from loopscope.numerics.latents.features import held_out_statistics, latent_statistics
from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows

def select(chosen: DiscoverRows, held_out: HeldOutRows) -> None:
    latent_statistics(chosen)
    held_out_statistics(held_out)
    latent_statistics(held_out)  # the one mistake here
"""


def test_each_prompt_lands_in_its_split_and_condition():
    discover, held_out = split_rows(ACTIVATIONS, CONDITION, SPLIT)
    assert discover.activations.toarray()[:, 0].tolist() == [0, 8, 12]
    assert discover.is_target.tolist() == [True, False, True]
    assert discover.hard_negatives.toarray()[:, 0].tolist() == [4]
    assert held_out.activations.toarray()[:, 0].tolist() == [2, 6]
    assert held_out.is_target.tolist() == [False, True]
    assert held_out.hard_negatives.toarray()[:, 0].tolist() == [10]


def test_without_test_prompts_nothing_is_held_out():
    assert split_rows(ACTIVATIONS, CONDITION, np.full(7, "discover"))[1] is None


@pytest.mark.parametrize(("condition", "split"), [("targets", "discover"), ("target", "train")])
def test_an_unknown_name_is_refused(condition, split):
    with pytest.raises(ValueError, match="expected one of"):
        split_rows(ACTIVATIONS, np.full(7, condition), np.full(7, split))


def test_rows_come_from_the_split_alone():
    rows = discover_rows([[1.0]], [True])
    parts = (rows.activations, rows.is_target, rows.hard_negatives)
    for made in (DiscoverRows, HeldOutRows):
        with pytest.raises(TypeError, match="made by split_rows alone"):
            made(*parts)
    with pytest.raises((TypeError, ValueError)):
        replace(rows, is_target=np.array([False]))


@pytest.mark.parametrize(
    "chooses", [latent_statistics, ActivationColumns.of, ActivationColumns.within_condition]
)
def test_a_run_refuses_to_choose_by_held_out_rows(chooses):
    with pytest.raises(TypeError, match="only DiscoverRows may choose"):
        chooses(held_out_rows([[1.0], [0.0]], [True, False]))


def test_the_type_checker_refuses_to_choose_by_held_out_rows(tmp_path):
    """With the cache that lint has filled: without one this takes half a minute."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(snippet)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": "."},
        capture_output=True,
        text=True,
    )
    wrong = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(wrong) == 1, done.stdout + done.stderr
    assert "snippet.py:8:" in wrong[0]
    assert 'incompatible type "HeldOutRows"; expected "DiscoverRows"' in wrong[0]


def test_the_columns_of_rows_are_picked_with_their_hard_negatives():
    discover, held_out = split_rows(ACTIVATIONS, CONDITION, SPLIT)
    picked = discover.latents(np.array([1]))
    assert isinstance(picked, DiscoverRows)
    assert picked.activations.toarray().tolist() == [[1], [9], [13]]
    assert picked.hard_negatives.toarray().tolist() == [[5]]
    assert isinstance(held_out.latents(np.array([0])), HeldOutRows)
    assert held_out_statistics(held_out.latents(np.array([], dtype=int))).auroc.shape == (0,)
