"""What a finished experiment hands out, used without the state folder that it came from."""

import json
import random
import shutil

import pyarrow.parquet
import pytest

from loopscope.reports.verification.files import check_files
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.verify import verify
from loopscope.specs.blinding import arms_by_letter
from loopscope.specs.registration import seal_of as registration_seal
from tests.integration.real import Place
from tests.tampering import (
    alterations_wanted,
    altered_bytes,
    altered_cell,
    altered_leaf,
    copied,
    leaves,
    seal_again,
)
from tests.tiny_experiment import document
from tests.vector_page import code_of_the_page

pytestmark = pytest.mark.integration

OTHERS = {
    "strict": {
        "gate": lambda _: {"minSubfeatures": 1, "rule": "strict", "minFineSelectivity": 0.0},
        "splits": lambda _: {"discover": 1, "test": 1},
        "steering": lambda spec: spec["steering"] | {
            "strengthUnit": "residualNorm", "samplesPerPrompt": 2, "strengths": [0.5, 1.0],
            "siblings": {"texts": ["beer", "tea", "house"]}, "positions": "generated",
        },
        "evidence": lambda _: {"topPrompts": 2, "randomPrompts": 1},
    },
    "necessary": {
        "ablation": lambda _: {"prompts": 8, "draws": 2},
        "damage": lambda _: {},
        "drift": lambda _: {"distances": [0, 4, 16], "temperatures": [1.0], "newTokens": 2},
    },
    "silent": {"selection": lambda spec: spec["selection"] | {"minSelectivity": 1.0}},
    "unsteered": {"steering": lambda spec: spec["steering"] | {"arms": ["coarse", "fine"]}},
}  # fmt: skip
"""More experiments, that verify other parts: by name, what differs from the tiny one."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("elsewhere"))
    steering = document("tiny")["spec"]["steering"] | {
        "systemPrompt": "people liked wine", "sampling": {"greedy": True},
    }  # fmt: skip
    made.write(steering=steering)
    for name, changes in OTHERS.items():
        made.write(name, **{key: change(document(name)["spec"]) for key, change in changes.items()})
    code, output = made.call("apply", "-f", str(made.specs), "--root", str(made.folder))
    assert code == 0, output
    for words in (("tiny",), ("strict", "--hypothesis", "coarse-none<0", "--note", "a guess")):
        code, output = made.call("register", *words)
        assert code == 0, output
    made.settle()
    return made


def export(place, *words):
    code, output = place.call("export", "vector", *words)
    assert code == 0, output
    return output


@pytest.mark.parametrize("arm", ["multi", "random-2"])
def test_a_vector_alone_makes_plain_code_write_what_the_experiment_wrote(place, tmp_path, arm):
    file = tmp_path / "vector.safetensors"
    said = export(place, "experiment/tiny", "--arm", arm, "--strength", "1", str(file))
    assert f"vector: {file}" in said and f"{arm} at 1 nextTokenKl" in said
    model, _, passport = code_of_the_page().try_it(file, place.folder / "model")
    assert model.config.model_type == "gemma2"
    rows = pyarrow.parquet.read_table(
        place.artifact("steering", "tiny") / "steering_samples.parquet"
    ).to_pylist()
    (own,) = (
        row["tokens"] for row in rows
        if (row["arm"], row["strength"], row["prompt_id"]) == (arm, 1.0, "opening-0000")
    )  # fmt: skip
    _, _, test = code_of_the_page().open_vector(file)
    assert test["greedy"] == own
    assert passport["tested"]["experiment"] == "default/tiny"
    assert passport["tested"]["verdict"] in place.call("get", "steering", "tiny", "-o", "yaml")[1]


def test_the_passport_holds_the_numbers_of_the_table_of_arms(place, tmp_path):
    file = tmp_path / "vector.safetensors"
    export(place, "steering/tiny-steering", "--arm", "fine", str(file))
    passport = code_of_the_page().open_vector(file)[1]
    arms = pyarrow.parquet.read_table(place.artifact("steering", "tiny") / "arms.parquet")
    by_name = {(row["arm"], row["strength"]): row for row in arms.to_pylist()}
    own, none = by_name["fine", 1.0], by_name["none", 0.0]
    effect, damage = passport["effect"], passport["damage"]
    assert passport["strength"]["norm"] == own["norm"]
    assert [effect[k] for k in ("rate", "rate_low", "rate_high")] == [
        own[f"concept_{k}"] for k in ("rate", "low", "high")
    ]
    assert effect["difference"] == pytest.approx(own["concept_rate"] - none["concept_rate"])
    assert effect["low"] <= effect["difference"] <= effect["high"]
    assert damage["next_token_kl"] == own["kl"]
    assert damage["unsteered_median_perplexity"] == none["median_perplexity"]
    model = json.loads(place.call("get", "capture", "tiny", "-o", "json")[1])
    assert passport["model"]["identity"] == model["status"]["inputs"]["model"]["ref"]["identity"]


def test_twice_the_same_command_writes_the_same_bytes(place, tmp_path):
    files = [tmp_path / name for name in ("one.gguf", "two.gguf")]
    for file in files:
        export(place, "tiny", "--arm", "multi", "--format", "gguf", str(file))
    first, second = (file.read_bytes() for file in files)
    assert first == second


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--arm", "none"], "the arm none is the unsteered model, no vector"),
        (["--arm", "systemPrompt"], "the arm systemPrompt is words before the text"),
        (["--arm", "placeboPrompt"], "the arm placeboPrompt is words before the text"),
        (["--arm", "random"], "random is several vectors; name one of them: random-0, random-1"),
        (["--arm", "corse"], "steered no arm 'corse'"),
        (["--arm", "multi", "--strength", "0.7"], "was not steered at 0.7"),
        (["--arm", "multi", "--format", "pickle"], "expected safetensors, gguf, repeng"),
        (["--arm", "multi", "--allow-partial"], "is about bundles"),
        ([], "name the arm"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_is_no_vector_is_refused_by_name_and_writes_nothing(place, tmp_path, words, why):
    code, output = place.call("export", "vector", "tiny", *words, str(tmp_path / "refused"))
    assert code in (1, 2) and why in " ".join(output.split()), output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_alone(place, tmp_path):
    file = tmp_path / "mine"
    file.write_text("mine")
    code, output = place.call("export", "vector", "tiny", "--arm", "multi", str(file))
    assert code == 1 and "exists" in output
    assert file.read_text() == "mine"


def test_options_of_a_vector_are_refused_for_a_bundle(place, tmp_path):
    code, output = place.call("export", "tiny", "--arm", "multi", str(tmp_path / "bundle"))
    assert code == 2 and "--arm is about a vector" in output


@pytest.fixture(scope="module")
def bundle(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "bundle"
    code, output = place.call("export", "tiny", str(folder))
    assert code == 0, output
    return folder


def test_a_bundle_of_a_real_run_holds_what_it_says(place, bundle):
    code, output = place.call("verify", str(bundle), "-o", "json")
    assert code == 0, output
    found = json.loads(output)
    assert found["holds"] and found["differences"] == []
    assert {"verdict: contrasts with intervals and p", "gate: word and doubts"} <= set(
        found["compared"]
    )
    assert "the texts themselves" in found["notRecomputed"]
    code, output = place.call("verify", str(bundle))
    assert code == 0 and "not re-computed:" in output
    assert f"bundle sha256:{found['digest']}" in output


@pytest.mark.parametrize("name", OTHERS)
def test_other_experiments_hold_what_their_bundles_say(place, tmp_path, name):
    code, output = place.call("export", name, str(tmp_path / name))
    assert code == 0, output
    found = verify(tmp_path / name)
    assert found.differences == []
    assert found.compared["gate: word and doubts"] >= 1
    assert ("the steering" in found.left_out) == (name == "silent")


@pytest.mark.parametrize(
    ("file", "at", "check"),
    [
        ("ablation/ablation.json", ("answers", 0, "loss"), "ablation"),
        ("ablation/ablation.json", ("contrasts", 1, "p_holm"), "ablation"),
        ("drift/drift.json", ("outcomes", 0, "near"), "drift: half-lives"),
        ("drift/drift_curve.parquet", ("kl", 2), "drift: the curve"),
        ("drift/wander_grid.parquet", ("gain", 1), "drift: means"),
        ("damage/damage.parquet", ("share", -1), "damage"),
    ],
)
def test_what_rests_on_a_steering_is_computed_again_too(place, tmp_path, file, at, check):
    folder = tmp_path / "necessary"
    assert place.call("export", "necessary", str(folder))[0] == 0
    draw = random.Random(0)
    if file.endswith(".json"):
        altered_leaf(folder / file, at, draw)
    else:
        rows = pyarrow.parquet.read_table(folder / file).num_rows
        altered_cell(folder / file, at[0], at[1] % rows, draw)
    seal_again(folder)
    assert any(one.check.startswith(check) for one in verify(folder).differences)


def test_what_was_registered_before_the_run_stands_in_the_bundle_with_its_answer(place, bundle):
    register = json.loads((bundle / "register.json").read_text())
    (record,) = register["records"]
    assert record["number"] == 1 and record["digest"] == register["chain"][0]
    assert len(register["chain"]) == 2, "of other experiments the digest alone"
    assert record["known"] == {}
    assert record["plan"]["openings"] == 3 and record["plan"]["samples_per_opening"] == 1
    found = verify(bundle)
    assert found.compared["register: sealed records in an unbroken chain"] == 3
    assert found.deviations == []
    assert "when nothing was done" in found.answers[0]
    assert [line.partition(":")[0] for line in found.answers[1:]] == [
        "multi-coarse > 0 in concept", "multi-fine > 0 in concept", "letters",
    ]  # fmt: skip


def test_what_was_not_registered_is_named_as_such(place, tmp_path):
    assert place.call("export", "unsteered", str(tmp_path / "bundle"))[0] == 0
    found = verify(tmp_path / "bundle")
    assert found.answers == []
    assert found.left_out["whether this was expected"] == "the experiment was not registered"


def test_an_experiment_whose_outcome_exists_is_not_registered(place):
    code, output = place.call("register", "tiny")
    assert code == 1 and "OutcomeExists" in output
    code, output = place.call("register")
    assert code == 0 and output.count("default/") == 2


def test_what_is_done_otherwise_than_registered_is_said(bundle, tmp_path):
    edited = copied(bundle, tmp_path / "edited")
    path = edited / "register.json"
    register = json.loads(path.read_text())
    register["records"][0]["plan"]["openings"] = 60
    register["records"][0]["inputs"]["fine"] = "0" * 64
    register["records"][0]["spec"]["mapping"] = "of another time"
    register["records"][0]["registered_at"] = "2999-01-01T00:00:00.000Z"
    record = register["records"][0]
    record["digest"] = register["chain"][0] = registration_seal(record)
    register["letters"] = arms_by_letter(record["digest"], register["letters"].values())
    path.write_text(json.dumps(register))
    seal_again(edited)
    found = verify(edited)
    assert found.differences == [], "who writes the register anew has a chain of his own"
    said = " ".join(found.deviations)
    assert "openings: registered 60, done 3" in said
    assert "another fine than was registered" in said
    assert "the spec of mapping was changed" in said
    assert "begun before it was registered" in said


@pytest.mark.parametrize("place_of", [("note",), ("hypotheses", 0, "sign"), ("plan", "openings")])
def test_an_edited_record_of_the_register_breaks_its_seal(bundle, tmp_path, place_of):
    edited = copied(bundle, tmp_path / "edited")
    altered_leaf(edited / "register.json", ("records", 0, *place_of), random.Random(1))
    seal_again(edited)
    assert any("seal" in one.place for one in verify(edited).differences)


def test_the_cited_digest_is_asked_for(place, bundle):
    found = json.loads(place.call("verify", str(bundle), "-o", "json")[1])
    digest = found["digest"]
    assert found["digestAsCited"] is None, "nobody said by which digest it was cited"
    assert place.call("verify", str(bundle), "--digest", f"sha256:{digest}")[0] == 0
    code, output = place.call("verify", str(bundle), "--digest", "0" * 64)
    assert code == 5 and "not the cited one" in output


def test_a_changed_number_is_named_with_what_it_should_be(place, bundle, tmp_path):
    edited = copied(bundle, tmp_path / "edited")
    verdict = edited / "verdict.json"
    document = json.loads(verdict.read_text())
    document["contrasts"][0]["estimate"] += 0.25
    verdict.write_text(json.dumps(document))
    seal_again(edited)
    code, output = place.call("verify", str(edited))
    assert code == 5
    assert "contrasts[0].estimate: recorded" in output and "values differ" in output


def test_what_is_no_bundle_is_refused(place, tmp_path):
    code, output = place.call("verify", str(tmp_path))
    assert code == 1 and "NoBundle" in output
    assert place.call("verify", str(tmp_path / "nowhere"))[0] == 2


def test_no_alteration_of_its_bytes_goes_unnoticed(bundle, tmp_path):
    """``ALTERATIONS=10000`` before pytest tries as many (``make alterations``)."""
    edited, draw = copied(bundle, tmp_path / "edited"), random.Random(18)
    unnoticed = []
    for _ in range(alterations_wanted(300)):
        what, undo = altered_bytes(edited, draw)
        findings = Findings()
        check_files(OpenBundle(edited), findings)
        undo()
        if not findings.differences:
            unnoticed.append(what)
    assert unnoticed == []
    assert verify(edited).holds, "all was taken back"


NOT_RECOMPUTED = {
    "directions.json": [("arms",), ("missing",)],
    "verdict.json": [
        ("missing",),
        ("probe",),
        ("budget", "positions_per_text"),
    ],
    "gate.json": [
        ("null", "eligible"),
        ("null", "rate_difference"),
        ("null", "norm_difference"),
        ("null", "density_difference"),
        ("selection", "prompts_needed"),
        ("readings", "co-occurring"),
        ("readings", "partial"),
        ("readings", "unrelated"),
        ("readings", "unobserved"),
        ("empty_corner", "unobserved"),
    ],
}
"""Values that only model or dictionaries can tell: ``verify`` names them as left out."""
NUMBERS = {
    "steering_scores.parquet": ("concept", "different_words", "distinct_2", "kl"),
    "arms.parquet": ("concept_rate", "concept_low", "concept_high", "intact", "kl", "n"),
    "features_coarse.parquet": ("q_value", "selectivity", "n_firing", "candidate"),
    "pairs.parquet": ("q_permutation", "edge", "reading", "child"),
    "coarse_summary.parquet": ("passes_cosine_rule",),
    "neutral_text.parquet": ("kl",),
}
"""Columns in which each value follows from others, or others from it."""


def is_left_out(name, place):
    named = any(place[: len(one)] == one for one in NOT_RECOMPUTED[name])
    is_cosine = place[0] == "arm_cosines"
    of_control = is_cosine and not {*place[1].split("~")} <= {"coarse", "fine", "multi"}
    of_one = name == "gate.json" and place[0] == "anchors" and place[-1] == "expected"
    of_rows = name == "gate.json" and place[-1] == "effective_dimensions"
    return named or of_control or of_one or of_rows


def test_no_headline_number_can_be_changed_by_who_seals_the_bundle_again(bundle, tmp_path):
    draw = random.Random(81)
    edited, unnoticed = tmp_path / "edited", []
    places = [
        (name, place)
        for name in ("verdict.json", "gate.json", "directions.json")
        for place in leaves(json.loads((bundle / name).read_text()))
        if not is_left_out(name, place)
    ]
    for _ in range(alterations_wanted(400) // 10):
        shutil.rmtree(edited, ignore_errors=True)
        copied(bundle, edited)
        if draw.random() < 0.6:
            name, place = draw.choice(places)
            altered_leaf(edited / name, place, draw)
        else:
            name = draw.choice(list(NUMBERS))
            rows = pyarrow.parquet.read_table(edited / name).num_rows
            place = draw.choice(NUMBERS[name]), draw.randrange(rows)
            altered_cell(edited / name, *place, draw)
        seal_again(edited)
        if verify(edited).holds:
            unnoticed.append((name, place))
    assert unnoticed == []
