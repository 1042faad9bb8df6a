"""The France experiment on the embedded model, held against an independent recomputation.

The spec is the shipped one with a smaller steering part, so that the test takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import yaml

pytestmark = pytest.mark.acceptance

REPOSITORY = Path(__file__).parents[2]
FRANCE = REPOSITORY / "examples" / "france"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def spec() -> dict:
    document = yaml.safe_load((FRANCE / "experiment.yaml").read_text())
    for place in (document["spec"]["prompts"], document["spec"]["steering"]):
        for source in place.values():
            if isinstance(source, dict) and "file" in source:
                source["file"] = str(FRANCE / source["file"])
    for dictionary in document["spec"]["dictionaries"].values():
        dictionary["path"] = str((FRANCE / dictionary["path"]).resolve())
    steering = document["spec"]["steering"]
    steering |= {"strengths": [0.5], "maxNewTokens": 8, "randomDraws": 1}
    openings = Path(steering["prompts"]["file"]).read_text().splitlines()[:4]
    steering["prompts"] = {"texts": openings}
    return document


@pytest.fixture(scope="module")
def bundle(spec: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence bundle of a real run."""
    folder = tmp_path_factory.mktemp("france")
    (folder / "france.yaml").write_text(yaml.safe_dump(spec))
    root = ("--root", str(REPOSITORY))
    for words in (("run", "france.yaml", *root), ("export", "france", "bundle")):
        done = subprocess.run(
            [sys.executable, "-m", "loopscope", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bundle"


@pytest.fixture(scope="module")
def recomputed(spec: dict, tmp_path_factory: pytest.TempPathFactory):
    from tests.acceptance import independent

    sets = {
        condition: Path(source["file"]).read_text().splitlines()
        for condition, source in spec["spec"]["prompts"].items()
        if condition in ("target", "neutral")
    }
    prompts = [*sets["target"], *sets["neutral"]]
    is_target = np.arange(len(prompts)) < len(sets["target"])
    tokenizer, model = independent.load_model(tmp_path_factory.mktemp("gguf"))
    x = independent.residuals(tokenizer, model, prompts)
    sides = {
        name: independent.decompose(Path(dictionary["path"]), x)
        for name, dictionary in spec["spec"]["dictionaries"].items()
    }
    return x, is_target, sides


def test_captured_residuals_equal_those_of_hugging_face(bundle: Path, recomputed) -> None:
    from safetensors.numpy import load_file

    x, _, _ = recomputed
    captured = load_file(bundle / "capture" / "residual.safetensors")["residual"]
    assert captured.shape == x.shape
    relative = np.linalg.norm(captured - x, axis=1) / np.linalg.norm(x, axis=1)
    assert relative.max() < TOLERANCE


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_feature_tables_and_candidates_agree(
    bundle: Path, recomputed, spec: dict, side: str
) -> None:
    from tests.acceptance import independent

    _, is_target, sides = recomputed
    table = parquet.read_table(bundle / f"features_{side}.parquet").to_pandas()
    for name, expected in independent.features(sides[side].activations, is_target).items():
        scale = max(1.0, float(np.nanmax(np.abs(expected))))
        assert (np.isnan(table[name].to_numpy()) == np.isnan(expected)).all(), name
        difference = np.abs(table[name].to_numpy() - expected)
        assert np.nanmax(difference) / scale < TOLERANCE, name
    expected = independent.candidates(sides[side].activations, is_target, spec["spec"]["selection"])
    assert expected, "the shipped dictionaries should hold a France latent"
    assert sorted(table["latent"][table["candidate"]]) == sorted(expected)


def test_cosines_and_correlations_of_every_pair_agree(bundle: Path, recomputed) -> None:
    from tests.acceptance import independent

    _, is_target, sides = recomputed
    coarse, fine = sides["coarse"], sides["fine"]
    pairs = parquet.read_table(bundle / "pairs.parquet").to_pandas()
    assert len(pairs) > 0
    for pair in pairs.itertuples():
        cosine = float(coarse.decoder[pair.coarse] @ fine.decoder[pair.fine])
        x, y = coarse.activations[:, pair.coarse], fine.activations[:, pair.fine]
        assert pair.cosine == pytest.approx(cosine, abs=TOLERANCE)
        assert pair.correlation == pytest.approx(
            independent.pearson(x, y), abs=TOLERANCE, nan_ok=True
        )
        assert pair.correlation_within_target == pytest.approx(
            independent.pearson(x[is_target], y[is_target]), abs=TOLERANCE, nan_ok=True
        )
        assert pair.correlation_within_condition == pytest.approx(
            independent.pearson(
                independent.without_condition_means(x, is_target),
                independent.without_condition_means(y, is_target),
            ),
            abs=TOLERANCE,
            nan_ok=True,
        )


def test_p_values_of_edges_agree_up_to_the_error_of_the_draws(bundle: Path, recomputed) -> None:
    from tests.acceptance import independent

    _, is_target, sides = recomputed
    pairs = parquet.read_table(bundle / "pairs.parquet").to_pandas()
    tested = pairs[pairs["p_permutation"].notna()].head(12)
    assert len(tested) > 0
    for pair in tested.itertuples():
        x = sides["coarse"].activations[:, pair.coarse]
        y = sides["fine"].activations[:, pair.fine]
        p = independent.permutation_p(x, y, is_target, 1000)
        error = 5 * np.sqrt(2 * max(p * (1 - p), 0.001) / 1000)
        assert pair.p_permutation == pytest.approx(p, abs=error)


def test_the_gate_counts_what_the_cosines_say(bundle: Path, recomputed, spec: dict) -> None:
    _, _, sides = recomputed
    cosines = sides["coarse"].decoder @ sides["fine"].decoder.T
    children = (cosines >= spec["spec"]["mapping"]["minCosine"]).sum(1)
    gate = json.loads((bundle / "gate.json").read_text())
    enough = children >= spec["spec"]["gate"]["minSubfeatures"]
    assert gate["share_of_all"] == pytest.approx(enough.mean())
    fires = (sides["coarse"].activations > 0).any(0)
    assert gate["share_of_firing"] == pytest.approx(enough[fires].mean())
    assert {a["coarse"]: len(a["children"]) for a in gate["anchors"]} == {
        a["coarse"]: int(children[a["coarse"]]) for a in gate["anchors"]
    }
    passes = any(enough[a["coarse"]] for a in gate["anchors"])
    assert gate["count_rule_passes"] == passes
    if not passes:
        assert gate["verdict"] in ("NO-GO", "INCONCLUSIVE")


def test_the_gate_is_compared_with_matched_anchors(bundle: Path, recomputed, spec: dict) -> None:
    from tests.acceptance import independent

    _, _, sides = recomputed
    cosines = sides["coarse"].decoder @ sides["fine"].decoder.T
    children = (cosines >= spec["spec"]["mapping"]["minCosine"]).sum(1)
    firing = (sides["coarse"].activations > 0).mean(0)
    gate = json.loads((bundle / "gate.json").read_text())
    anchors = [anchor["coarse"] for anchor in gate["anchors"]]
    assert gate["best_count"] == max(children[anchor] for anchor in anchors)
    others = int((firing > 0).sum()) - sum(firing[anchor] > 0 for anchor in anchors)
    assert gate["null"]["eligible"] == others
    expected = independent.percentile(children, firing, anchors, 500, 5000)
    assert gate["percentile"] == pytest.approx(expected, abs=10)
    draws = parquet.read_table(bundle / "gate_draws.parquet").to_pandas()
    null = draws["best_count"][draws["source"] == "matched anchors"]
    assert len(null) == gate["null"]["anchors"] == min(500, others)
    p = (1 + (null >= gate["best_count"]).sum()) / (1 + len(null))
    assert gate["percentile"] == pytest.approx(100 * (1 - p))


def test_every_cell_was_generated_and_scored(bundle: Path) -> None:
    scores = parquet.read_table(bundle / "steering_scores.parquet").to_pandas()
    arms = {"none", "coarse", "fine", "multi", "random-0"}
    assert set(scores["arm"]) == arms
    assert len(scores) == len(arms) * 4
    assert scores[scores["arm"] == "none"]["kl"].abs().max() == 0
    assert (scores[scores["arm"] != "none"]["kl"] > 0).all()
    verdict = json.loads((bundle / "verdict.json").read_text())
    assert verdict["n"] == 4
    assert set(verdict["arm_cosines"]) >= {"coarse~multi", "fine~multi"}
