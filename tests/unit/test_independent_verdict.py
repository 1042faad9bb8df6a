"""The verdict of generated scores, recomputed by code that shares nothing with it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas
import pytest

from loopscope.worker.stages.steering.cells import Cell, Row
from loopscope.worker.stages.steering.neutral import NeutralScores
from loopscope.worker.stages.steering.outcomes.lexicon import word_outcomes
from loopscope.worker.stages.steering.scored import Scored
from loopscope.worker.stages.steering.tables import write_results
from tests.acceptance.independent_verdict import Agreement, check

ARMS = ("none", "coarse", "fine", "multi", "random-0", "random-1", "random-2")


def scored(rates, openings, samples, strengths, seed, loops=0.0, grouped=1, texts=0):
    """A finished run whose texts hold the concept with these rates; ``loops`` are degenerate.

    With ``texts`` strengths are budgets that were solved on so many neutral texts.
    """
    rng = np.random.default_rng(seed)
    cells = [
        Cell(arm, strength, strength)
        for arm in (*ARMS, "systemPrompt")
        if arm in ARMS or texts
        for strength in ([0.0] if arm in ("none", "systemPrompt") else strengths)
    ]
    kl, budget = effects(cells, texts, rng) if texts else (None, None)
    rows = [
        Row(opening, sample, cell)
        for opening, cell, sample in product(range(openings), range(len(cells)), range(samples))
    ]
    difficulty = rng.normal(0, 0.1, openings)
    hits = {
        row: rng.random() < rates[cells[row.cell].arm.split("-")[0]] + difficulty[row.opening]
        for row in rows
    }
    loop = {
        row: cells[row.cell].arm == "multi" and hits[row] and rng.random() < loops for row in rows
    }
    reread = Scored(
        payload={
            "openings": [
                {"id": f"opening-{n:04d}", "text": "We met"}
                | ({"group": n // grouped} if grouped > 1 else {})
                for n in range(openings)
            ],
            "samplesPerPrompt": samples,
            "lexicon": ["france"],
            "siblings": [],
            "minDifference": 0.15,
            "maxArmCosine": 0.98,
            "neutralText": ["A sentence about nothing much."] * max(1, texts),
            "strengthUnit": "nextTokenKl",
        },
        cells=cells,
        rows=rows,
        generated={
            row: {"tokens": [1, 2, 3], "after_steered": 3, "opening_steered": 2} for row in rows
        },
        texts={row: "in France" if hits[row] else "at home" for row in rows},
        outcomes={
            "log_perplexity": {row: rng.normal(2, 0.3) for row in rows},
            "probe": dict.fromkeys(rows, np.nan),
            "target_latent": dict.fromkeys(rows, np.nan),
            "distinct_2": {row: 0.1 if loop[row] else 0.9 for row in rows},
        },
        probe={},
        anchor={"latent": 3, "children": 4},
        neutral_order=list(rng.permutation(max(1, texts))),
        neutral=NeutralScores(
            np.array([[cell.strength] for cell in cells]) if kl is None else kl,
            {side: np.zeros(len(cells)) for side in ("coarse", "fine")},
        ),
        budget=budget,
        shifts=[],
        special_tokens=frozenset(),
        arm_cosines={"coarse~multi": 0.9, "fine~multi": 0.9},
        missing={},
        declared=openings,
    )
    return replace(reread, outcomes={**word_outcomes(reread), **reread.outcomes})


def effects(cells, texts, rng):
    """What each cell does to each text, in nats: at its strength in the mean, within a percent."""
    kl = rng.lognormal(0, 0.5, texts) * rng.lognormal(0, 0.2, (len(cells), texts))
    at = np.array([cell.strength or 0.15 * (cell.arm != "none") for cell in cells])
    kl *= (at * rng.uniform(0.99, 1.01, len(cells)) / kl.mean(axis=1))[:, None]
    steered = np.array([cell.strength > 0 for cell in cells])
    return kl, np.where(steered[:, None], kl, np.nan)


WORLDS = {
    "Supported": {"none": 0.02, "coarse": 0.2, "fine": 0.3, "multi": 0.7, "random": 0.05},
    "Refuted": {"none": 0.02, "coarse": 0.6, "fine": 0.3, "multi": 0.1, "random": 0.05},
    "NoPracticalDifference": {
        "none": 0.02, "coarse": 0.2, "fine": 0.4, "multi": 0.4, "random": 0.05,
    },
    "NotTestable": {"none": 0.1, "coarse": 0.1, "fine": 0.1, "multi": 0.3, "random": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("word", WORLDS)
@pytest.mark.parametrize(
    ("openings", "samples", "strengths"), [(4, 1, [0.1]), (20, 1, [0.1]), (60, 3, [0.1, 0.3])]
)
def test_the_verdict_is_computed_again(tmp_path, word, openings, samples, strengths):
    scores = scored(WORLDS[word], openings, samples, strengths, seed=openings)
    write_results(scores, tmp_path)
    agreement = Agreement()
    check(tmp_path, agreement)
    assert agreement.rows["verdict"] == (1, 0.0)
    assert agreement.rows["contrasts: intervals"][0] == 5 * 4


@pytest.mark.parametrize("grouped", [5, 10])
def test_openings_that_belong_together_are_computed_again(tmp_path, grouped):
    write_results(scored(WORLDS["Supported"], 58, 2, [0.1], 3, grouped=grouped), tmp_path)
    check(tmp_path, Agreement(), np.arange(58) // grouped)


def test_a_gain_that_rests_on_loops_is_found_again(tmp_path):
    metrics = write_results(scored(WORLDS["Supported"], 60, 2, [0.1], 1, loops=0.9), tmp_path)
    assert metrics["verdict"] == "Inconclusive"
    check(tmp_path, Agreement())


@pytest.mark.parametrize(
    ("strengths", "texts"), [([0.1], 1), ([0.1], 12), ([0.1, 0.2], 5), ([0.05, 0.1, 0.3], 40)]
)
def test_the_error_of_budgets_is_computed_again_from_the_kl_of_each_text(
    tmp_path, strengths, texts
):
    rates = WORLDS["Supported"] | {"systemPrompt": 0.4}
    write_results(scored(rates, 30, 2, strengths, 5, texts=texts), tmp_path)
    agreement = Agreement()
    check(tmp_path, agreement)
    for kind in ("log ratio sd", "slope", "shared sd"):
        assert agreement.rows[f"budgets: {kind}"][0] == 3  # coarse, fine, random
    assert agreement.rows["budgets: share off the strength"][0] == 6 * len(strengths)
    assert agreement.rows["arms at the prompt's KL"][0] == 3
    told = json.loads((tmp_path / "verdict.json").read_text())["contrasts"]
    assert min(entry["shared_sd"] for entry in told if entry["contrast"] == "multi-fine") > 0


@pytest.mark.parametrize("column", ["kl", "budget"])
def test_an_arm_that_is_off_its_budget_is_noticed(tmp_path, column):
    write_results(scored(WORLDS["Supported"] | {"systemPrompt": 0.4}, 20, 1, [0.1], 6, texts=8),
                  tmp_path)  # fmt: skip
    path = tmp_path / "neutral_text.parquet"
    table = pandas.read_parquet(path)
    table.loc[table["arm"] == "fine", column] *= 1.04
    table.to_parquet(path)
    with pytest.raises(AssertionError, match="KL of arms" if column == "kl" else "strength"):
        check(tmp_path, Agreement())


def test_numbers_that_were_changed_are_noticed(tmp_path):
    write_results(scored(WORLDS["Supported"], 40, 2, [0.1], 2), tmp_path)
    path = tmp_path / "verdict.json"
    path.write_text(path.read_text().replace('"Supported"', '"Refuted"'))
    with pytest.raises(AssertionError, match="Refuted"):
        check(tmp_path, Agreement())
