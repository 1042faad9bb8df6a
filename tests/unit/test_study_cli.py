"""A study at the front door: what is refused, planned, listed, described, reported and exported."""

import csv
import json

import pytest
import yaml

from tests.unit.test_controller_study import TEMPLATES, settled_study


@pytest.fixture
def studied(tmp_path):
    """A settled study s in the state folder of the commands."""
    return settled_study(tmp_path / "state")


def test_get_shows_how_many_concepts_are_ready_and_the_answer(studied, loopscope):
    code, out, _ = loopscope("get", "studies")
    head, row = out.splitlines()
    assert code == 0 and head.split() == [
        *("NAME", "READY", "TESTABLE", "GATE-OPEN", "ANSWER", "DIFFERENCE", "AGE")
    ]
    assert row.split()[:5] == ["s", "5/5", "5/5", "5/5", "Supported"] and "+0.30 [" in row


def test_experiments_of_a_study_are_selected_by_their_family(studied, loopscope):
    label = "study.loopscope.dev/family=animals"
    _, out, _ = loopscope("get", "experiments", "-l", label, "-o", "name")
    assert out.split() == [f"experiment/s-{name}" for name in ("birds", "cats", "dogs")]


def test_describe_shows_the_concepts_and_the_answer_in_sentences(studied, loopscope):
    _, out, _ = loopscope("describe", "study", "s")
    assert "Concepts:\n" in out and "experiment/s-cats" in out
    answer = out.partition("Answer:\n")[2]
    assert answer.startswith("  Supported.\n") and "Mean over 5 tested concepts" in answer
    assert "Of 5 concepts 5 could be tested and 0 could not (0 %)" in answer


def test_the_report_has_a_forest_plot_of_all_concepts_and_no_script(studied, loopscope, tmp_path):
    code, out, _ = loopscope("report", "study/s", "-o", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert code == 0 and str(tmp_path / "s.html") in out
    assert page.count("<circle") == 5 and page.count("<polygon") == 1 and "<script" not in page
    for name in ("animals", "weather", "cats", "snow", "a new concept"):
        assert f">{name}</text>" in page
    assert "Supported." in page and "What not to conclude" in page


def test_export_writes_the_numbers_with_all_their_digits_once(studied, loopscope, tmp_path):
    folder = tmp_path / "out"
    assert loopscope("export", "study/s", folder)[0] == 0
    assert sorted(one.name for one in folder.iterdir()) == [
        "concepts.csv", "report-static.html", "report.html", "study.json",
    ]  # fmt: skip
    static = (folder / "report-static.html").read_bytes()
    assert static == (folder / "report.html").read_bytes() and b"<script" not in static
    document = json.loads((folder / "study.json").read_text())
    assert document["word"] == "Supported" and len(document["sentences"]) == 5
    rows = list(csv.DictReader((folder / "concepts.csv").open()))
    assert [row["name"] for row in rows] == ["birds", "cats", "dogs", "rain", "snow"]
    assert float(rows[0]["estimate"]) == document["concepts"][0]["estimate"] == 0.3
    code, _, err = loopscope("export", "study/s", folder)
    assert code != 0 and "exists" in err


def test_a_study_that_is_not_there_is_said_to_be_missing(studied, loopscope):
    for command in (("report", "study/t"), ("export", "study/t", "x"), ("get", "study", "t")):
        code, _, err = loopscope(*command)
        assert code == 1 and "no study named 't'" in err


def test_retry_of_a_study_looks_at_the_stages_of_its_experiments(studied, loopscope):
    _, out, err = loopscope("retry", "study", "s")
    assert "s-cats-capture" in out + err


# -- what is refused ---------------------------------------------------------------


@pytest.fixture
def refused(loopscope, experiment):
    """Return what an apply of a study says whose file was changed so."""

    def of(change):
        def as_study(document):
            spec = dict(document)
            document.clear()
            own = {"strengths": [0.5], "prompts": {"texts": ["We went to"]}}
            del spec["prompts"]
            concepts = {name: {"words": [f"{name} one"]} for name in ("cats", "dogs")}
            document["experiment"] = {**spec, "steering": own}
            document["families"] = {"animals": {"templates": TEMPLATES, "concepts": concepts}}
            change(document)

        path = experiment(as_study)
        value = yaml.safe_load(path.read_text())
        path.write_text(json.dumps({**value, "kind": "Study", "metadata": {"name": "s"}}))
        code, _, err = loopscope("apply", "-f", path)
        assert code == 2 and "nothing was applied" in err
        return err

    return of


def test_what_belongs_to_a_concept_is_refused_in_the_template(refused):
    def prompts(spec):
        spec["experiment"]["prompts"] = {}

    def lexicon(spec):
        spec["experiment"]["steering"]["lexicon"] = {"texts": ["x"]}

    assert "spec.experiment: prompts: it is the concept's own" in refused(prompts)
    assert "steering.lexicon: it is the concept's own" in refused(lexicon)


def test_a_wrong_field_of_the_template_is_told_once_at_its_place(refused):
    def misspelt(spec):
        spec["experiment"]["maping"] = {}

    err = refused(misspelt)
    assert err.count("spec.experiment.maping") == 1 and "did you mean" in err


def test_a_template_without_the_place_of_the_word_is_refused(refused):
    def without(spec):
        spec["families"]["animals"]["templates"] = ["no place here"]

    assert "expected {word} and no other name in braces" in refused(without)


def test_words_that_two_concepts_share_are_refused_at_the_family(refused):
    def shared(spec):
        spec["families"]["animals"]["concepts"]["dogs"] = {"words": ["cats one", "pug"]}

    err = refused(shared)
    assert "spec.families.animals.concepts" in err and "cats one" in err


def test_a_concept_that_is_listed_and_made_is_refused(refused):
    def twice(spec):
        texts = {"target": {"texts": ["a"]}, "neutral": {"texts": ["b"]}}
        spec["concepts"] = {"cats": {"family": "x", "prompts": texts, "lexicon": {"texts": ["z"]}}}

    assert "the concept cats of family animals is there already" in refused(twice)


def test_a_study_without_a_concept_or_without_steering_is_refused(refused):
    assert "found no concept" in refused(lambda spec: spec.pop("families"))
    assert "expected steering" in refused(lambda spec: spec["experiment"].pop("steering"))


def test_a_family_of_one_needs_siblings(refused):
    def alone(spec):
        del spec["families"]["animals"]["concepts"]["dogs"]

    assert "a family of one concept needs siblings" in refused(alone)


def test_names_that_would_be_too_long_are_refused(refused):
    def long(spec):
        concepts = spec["families"]["animals"]["concepts"]
        concepts["x" * 31] = concepts.pop("dogs")

    assert "30" in refused(long)
