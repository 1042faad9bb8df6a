"""The France experiment on the embedded model, held against an independent recomputation.

The spec is the shipped one with a smaller steering part, so that the test takes minutes. Where
rounding decides, ``independent`` says so; such near ties are counted apart, and nothing else may
differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from tests.acceptance.comparison import Comparison
from tests.acceptance.shipped import bundle_of, cut, shipped
from tests.tree import ROOT

pytestmark = pytest.mark.acceptance

FRANCE = ROOT / "examples" / "france"


@pytest.fixture(scope="module")
def spec() -> dict:
    document = shipped(FRANCE)
    steering = document["spec"]["steering"]
    document["spec"]["splits"] = {"test": 0}  # the other computation is over all prompts
    steering |= {"arms": ["none", "coarse", "fine", "multi", "random"], "randomDraws": 1}
    steering |= {"strengths": [0.1], "maxNewTokens": 8}
    del steering["systemPrompt"]  # nothing here looks at it, nor at these
    del document["spec"]["evidence"], document["spec"]["trace"]
    cut(steering, prompts=4, neutralText=1)
    return document


@pytest.fixture(scope="module")
def compare() -> Iterator[Comparison]:
    """Collects what was compared; LOOPSCOPE_COMPARISON names a file to write it to."""
    comparison = Comparison()
    yield comparison
    if target := os.environ.get("LOOPSCOPE_COMPARISON"):
        Path(target).write_text(comparison.table() + "\n")


@pytest.fixture(scope="module")
def bundle(spec: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence bundle of a real run."""
    return bundle_of(spec, tmp_path_factory.mktemp("france"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory):
    from tests.acceptance import independent

    return independent.load_model(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def recomputed(spec: dict, plain_model):
    """The captured residuals [prompts, d_model], whether each prompt is a target, both sides."""
    from tests.acceptance import independent

    sets = {
        condition: Path(source["file"]).read_text().splitlines()
        for condition, source in spec["spec"]["prompts"].items()
        if condition in ("target", "neutral")
    }
    prompts = [*sets["target"], *sets["neutral"]]
    is_target = np.arange(len(prompts)) < len(sets["target"])
    tokenizer, model = plain_model
    x = independent.residuals(tokenizer, model, prompts)
    sides = {
        name: independent.decompose(Path(dictionary["path"]), x)
        for name, dictionary in spec["spec"]["dictionaries"].items()
    }
    return x, is_target, sides


@pytest.fixture(scope="module")
def is_target(recomputed) -> np.ndarray:
    """Whether each prompt is a target prompt."""
    return recomputed[1]


@pytest.fixture(scope="module")
def activations(bundle: Path) -> dict[str, np.ndarray]:
    """What Loopscope stored for each side, dense [prompts, latents]."""
    import scipy.sparse
    from safetensors.numpy import load_file

    found = {}
    for side in ("coarse", "fine"):
        digest = json.loads((bundle / "manifests" / f"{side}.json").read_text())["digest"]
        folder = bundle.parent / ".loopscope" / "artifacts" / "decomposition" / digest
        stored = load_file(folder / "activations.safetensors")
        parts = stored["values"], stored["indices"], stored["indptr"]
        found[side] = scipy.sparse.csr_array(parts, shape=tuple(stored["shape"])).toarray()
    return found


@pytest.fixture(scope="module")
def sides(recomputed, activations):
    """Both sides, with the near ties decided as Loopscope did; nothing else may differ."""
    return {name: side.settled(activations[name]) for name, side in recomputed[2].items()}


def test_captured_residuals_equal_those_of_hugging_face(
    bundle: Path, recomputed, compare: Comparison
) -> None:
    from safetensors.numpy import load_file

    x, _, _ = recomputed
    captured = load_file(bundle / "capture" / "residual.safetensors")["residual"]
    sizes = np.linalg.norm(x, axis=1, keepdims=True)
    compare.agree("captured residuals, per row", captured / sizes, x / sizes)


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_every_activation_agrees_but_for_which_latent_wins_a_near_tie(
    bundle: Path, recomputed, activations, sides, side: str, compare: Comparison
) -> None:
    own, found = recomputed[2][side], activations[side]
    compare.agree(f"activations, {side}", found, sides[side].activations)
    active = own.activations > 0
    turned = int((active & (found == 0)).sum())
    compare.ties(f"active latents, {side}", int((own.near & active).sum()), turned, active.sum())
    metrics = json.loads((bundle / "manifests" / f"{side}.json").read_text())["metrics"]
    assert metrics["active"] == (found > 0).sum()
    # the same rule in float32: what lies within rounding of being near may be counted or not
    assert metrics["near_edge"] == pytest.approx(int((own.near & active).sum()), rel=0.25, abs=5)


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_feature_tables_and_candidates_agree(
    bundle: Path, is_target, activations, sides, spec: dict, side: str, compare: Comparison
) -> None:
    from tests.acceptance import independent

    table = parquet.read_table(bundle / f"features_{side}.parquet").to_pandas()
    described = independent.features(sides[side].activations, is_target)
    ranked = independent.rank_tests(activations[side], is_target)
    for name, expected in (described | ranked).items():
        compare.agree(f"{name}, {side}", table[name].to_numpy(), expected)
    choice = independent.candidates(described, ranked["q_value"], spec["spec"]["selection"])
    assert choice.surely, "the shipped dictionaries should hold a France latent"
    found = table["latent"][table["candidate"]].to_numpy()
    found = found[np.argsort(-choice.score[found], kind="stable")].tolist()
    assert choice.admits(found)
    near = choice.possibly - choice.surely
    compare.ties(f"candidates, {side}", len(near), len(near & set(found)), len(table))


def test_cosines_correlations_coverages_and_readings_of_every_pair_agree(
    bundle: Path, is_target, sides, spec: dict, compare: Comparison
) -> None:
    from tests.acceptance import independent

    coarse, fine = sides["coarse"], sides["fine"]
    pairs = parquet.read_table(bundle / "pairs.parquet").to_pandas()
    assert len(pairs) > 0
    expected: dict[str, list[float]] = {}
    for pair in pairs.itertuples():
        x, y = coarse.activations[:, pair.coarse], fine.activations[:, pair.fine]
        residues = [independent.without_condition_means(c, is_target) for c in (x, y)]
        both = ((x > 0) & (y > 0)).sum()
        for name, value in (
            ("cosine", float(coarse.decoder[pair.coarse] @ fine.decoder[pair.fine])),
            ("correlation", independent.pearson(x, y)),
            ("correlation_within_target", independent.pearson(x[is_target], y[is_target])),
            ("correlation_within_condition", independent.pearson(*residues)),
            ("coverage_coarse_given_fine", independent.share(both, (y > 0).sum())),
            ("coverage_fine_given_coarse", independent.share(both, (x > 0).sum())),
        ):
            expected.setdefault(name, []).append(value)
    for name, values in expected.items():
        compare.agree(f"{name} of pairs", pairs[name].to_numpy(), values)
    read = [
        independent.readings(*numbers, spec["spec"]["mapping"])
        for numbers in zip(expected["cosine"], expected["correlation"], strict=True)
    ]
    assert all(word in words for word, words in zip(pairs["reading"], read, strict=True))
    compare.ties("readings of pairs", sum(len(words) > 1 for words in read), 0, len(read))


def test_p_values_of_edges_agree_up_to_the_error_of_the_draws(bundle: Path, sides) -> None:
    from tests.acceptance import independent

    prompts = parquet.read_table(bundle / "capture" / "prompts.parquet").to_pandas()
    alike = independent.alike(
        *(prompts[name].tolist() for name in ("condition", "last_token", "group"))
    )
    pairs = parquet.read_table(bundle / "pairs.parquet").to_pandas()
    tested = pairs[pairs["p_permutation"].notna()].head(12)
    assert len(tested) > 0
    for pair in tested.itertuples():
        x = sides["coarse"].activations[:, pair.coarse]
        y = sides["fine"].activations[:, pair.fine]
        p = independent.permutation_p(x, y, alike, 1000)
        error = 5 * np.sqrt(2 * max(p * (1 - p), 0.001) / 1000)
        assert pair.p_permutation == pytest.approx(p, abs=error)


@pytest.fixture(scope="module")
def children(bundle: Path, sides, spec: dict, compare: Comparison) -> np.ndarray:
    """How many children each coarse latent has; a cosine within rounding may count or not."""
    from tests.acceptance import independent

    cosines = sides["coarse"].decoder @ sides["fine"].decoder.T
    surely, possibly = independent.children(cosines, spec["spec"]["mapping"]["minCosine"])
    found = parquet.read_table(bundle / "coarse_summary.parquet")["children_cosine_rule"].to_numpy()
    assert (surely.sum(1) <= found).all()
    assert (found <= possibly.sum(1)).all()
    near, turned = int((possibly & ~surely).sum()), int((found - surely.sum(1)).sum())
    compare.ties("children by cosine", near, turned, cosines.size)
    return found


def test_the_gate_counts_what_the_cosines_say(bundle: Path, sides, children, spec: dict) -> None:
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


@pytest.fixture(scope="module")
def coarse_rows(sides) -> np.ndarray:
    """The decoder rows of the coarse dictionary, as long as they are."""
    return sides["coarse"].decoder * sides["coarse"].norm[:, None]


def test_ranks_among_matched_anchors_controls_and_halves_give_the_gates_word(
    bundle: Path, coarse_rows, compare: Comparison
) -> None:
    from tests.acceptance.independent_gate import check_gate
    from tests.acceptance.independent_verdict import Agreement

    agreement = Agreement()
    check_gate(bundle, coarse_rows, agreement)
    compare.rows |= agreement.rows


def test_dictionaries_that_are_built_and_halves_of_ones_own_agree_with_the_gates_draws(
    bundle: Path, is_target, sides, coarse_rows, spec: dict
) -> None:
    from tests.acceptance.independent_draws import control_counts, outcomes_of_halves
    from tests.acceptance.independent_gate import Anchored, within

    gate = json.loads((bundle / "gate.json").read_text())
    draws = parquet.read_table(bundle / "gate_draws.parquet").to_pandas()
    latents = [anchor["coarse"] for anchor in gate["anchors"]]
    told = draws.loc[draws["source"] == "decoder rows", "best_count"]
    least = spec["spec"]["mapping"]["minCosine"]
    built = control_counts(coarse_rows[latents], sides["fine"].decoder, least, 40, seed=1)
    error = np.sqrt(told.var() / len(told) + built.var() / len(built))
    assert abs(told.mean() - built.mean()) <= 5 * error + 0.05

    summary = parquet.read_table(bundle / "coarse_summary.parquet").to_pandas()
    rate = parquet.read_table(bundle / "features_coarse.parquet")["text_rate"].to_numpy()
    living = summary["fires"].to_numpy() | (rate > 0)
    children = summary["children_cosine_rule"].to_numpy()
    prompts = parquet.read_table(bundle / "capture" / "prompts.parquet").to_pandas()
    again = outcomes_of_halves(
        sides["coarse"].activations,
        is_target,
        prompts["group"].to_numpy() if "group" in prompts else None,
        Anchored(children, rate, coarse_rows, living),
        spec["spec"]["selection"],
        {"minSubfeatures": gate["minSubfeatures"], "nullAnchors": gate["null"]["wanted"],
         "minPercentile": gate["min_percentile"]},
        40,
    )  # fmt: skip
    stability = gate["stability"]
    failing = stability["outcomes"].get("fails", 0) + stability["outcomes"].get("untestable", 0)
    share, other = failing / stability["resamples"], (again["fails"] + again["none"]) / 40
    assert abs(share - other) <= within((share + other) / 2, stability["resamples"], 40)


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


@pytest.fixture(scope="module")
def vectors(bundle: Path, is_target, activations, sides, spec: dict) -> dict[str, np.ndarray]:
    """The unit vectors of the arms, built again."""
    from tests.acceptance import independent
    from tests.acceptance.independent_steering import arm_vectors

    described = independent.features(sides["coarse"].activations, is_target)
    q = independent.rank_tests(activations["coarse"], is_target)["q_value"]
    choice = independent.candidates(described, q, spec["spec"]["selection"])
    built = json.loads((bundle / "directions.json").read_text())
    assert choice.admits(built["anchors"])
    assert built["anchor"] == built["anchors"][0]
    cosines = sides["fine"].decoder @ sides["coarse"].decoder[built["anchor"]]
    surely, possibly = independent.children(cosines, spec["spec"]["mapping"]["minCosine"])
    assert set(np.flatnonzero(surely)) <= set(built["children"]) <= set(np.flatnonzero(possibly))
    return arm_vectors(sides["coarse"], sides["fine"], built["anchor"], built["children"])


@pytest.fixture(scope="module")
def norms(bundle: Path) -> dict[str, float]:
    """The lengths that Loopscope's search found; what follows from them is checked."""
    arms = parquet.read_table(bundle / "arms.parquet").to_pandas()
    return dict(zip(arms["arm"], arms["norm"], strict=True))


def test_the_arms_are_built_from_the_decoders(bundle: Path, vectors, compare: Comparison) -> None:
    from safetensors.numpy import load_file

    built = load_file(bundle / "directions.safetensors")
    for arm, vector in vectors.items():
        compare.agree("directions of the arms", built[arm], vector)
    cosines = json.loads((bundle / "verdict.json").read_text())["arm_cosines"]
    pairs = [("coarse", "fine"), ("coarse", "multi"), ("fine", "multi")]
    compare.agree(
        "cosines between the arms",
        [cosines[f"{a}~{b}"] for a, b in pairs],
        [vectors[a] @ vectors[b] for a, b in pairs],
    )


def test_the_divergence_of_each_arm_is_the_budget(
    bundle: Path, vectors, norms, plain_model, spec: dict, compare: Comparison
) -> None:
    from tests.acceptance.independent_steering import measured_positions, next_token_kl

    tokenizer, model = plain_model
    (text,) = spec["spec"]["steering"]["neutralText"]["texts"]
    tokens = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    arms = parquet.read_table(bundle / "arms.parquet").to_pandas().set_index("arm")
    positions = measured_positions(text, tokens)
    again = {
        arm: next_token_kl(model, tokens, norms[arm] * v, positions) for arm, v in vectors.items()
    }
    compare.agree("next-token KL", [arms.loc[arm, "kl"] for arm in again], list(again.values()))
    for arm, divergence in again.items():
        assert divergence == pytest.approx(0.1, rel=0.021), arm


def test_texts_and_their_outcomes_are_those_of_whole_passes(
    bundle: Path, vectors, norms, plain_model, spec: dict, compare: Comparison
) -> None:
    from tests.acceptance import independent_steering as plain

    tokenizer, model = plain_model
    steering = spec["spec"]["steering"]
    rule = steering["sampling"]
    words = Path(steering["lexicon"]["file"]).read_text().splitlines()
    samples = parquet.read_table(bundle / "steering_samples.parquet").to_pandas()
    scores = parquet.read_table(bundle / "steering_scores.parquet").to_pandas()
    silent = np.zeros(model.config.hidden_size)
    drawn, near, turned, perplexities, concepts, variety, rows = 0, 0, 0, [], [], [], []
    for i, sample in samples.iterrows():
        if sample["arm"] == "random-0":
            continue
        opening = steering["prompts"]["texts"][int(sample["prompt_id"].split("-")[1])]
        before = [tokenizer.bos_token_id, *tokenizer(opening, add_special_tokens=False).input_ids]
        vector = vectors.get(sample["arm"], silent) * norms[sample["arm"]]
        uniforms = plain.draws(rule["seed"], sample["prompt_id"], sample["sample"], 8)
        tokens = sample["tokens"].tolist()
        ended = [] if len(tokens) == 8 else [tokenizer.eos_token_id]
        choices = plain.choices(model, before, tokens + ended, vector, uniforms, rule)
        assert tokenizer.eos_token_id not in tokens
        for token, choice in zip(tokens + ended, choices, strict=True):
            assert token in choice.possibly, (sample["arm"], opening, tokens)
            near += len(choice.possibly) > 1
            turned += token != choice.token
        drawn += len(choices)
        rows.append(i)
        perplexities.append(plain.perplexity(model, before, tokens))
        concepts.append(plain.mentions(sample["text"], words))
        variety.append(plain.distinct_pairs(tokens))
    compare.ties("tokens of texts", near, turned, drawn)
    compare.rows["generated texts, token by token"] = (drawn, 0.0)
    chosen = scores.loc[rows]
    compare.agree("perplexity of texts", chosen["perplexity"].to_numpy(), perplexities)
    compare.agree("concept score of texts", chosen["concept"].to_numpy(), concepts)
    compare.agree("distinct pairs of texts", chosen["distinct_2"].to_numpy(), variety)


def test_the_verdict_is_that_of_laws_convolved_value_by_value(
    bundle: Path, compare: Comparison
) -> None:
    from tests.acceptance.independent_verdict import Agreement, check

    agreement = Agreement()
    check(bundle, agreement)
    compare.rows |= agreement.rows
