"""Every example is a valid spec, also without a network, and its texts keep what is promised."""

import importlib.util
import socket
from functools import cache
from pathlib import Path

import pytest

from loopscope.context import root_of
from loopscope.controller.plan.applying import load_admitted
from loopscope.specs.canonical import canonical_json
from loopscope.specs.lexicon import folded, lexicon_pattern
from loopscope.specs.neutral import packaged_neutral_texts
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.splits import Splits, prompts_of
from loopscope.specs.sweep import cells
from loopscope.specs.texts.same import normalised

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*EXAMPLES.glob("*/experiment.yaml"), *EXAMPLES.glob("studies/*.yaml")])
EMBEDDED = ("france", "weather", "code", "coin-toss")
STUDY_OPENINGS = 126


def name_of(file):
    return f"{file.parent.name}/{file.stem}"


@cache
def loaded(file):
    (item,) = load_admitted(file, root_of(file, None))
    return item.manifest


def spec_of(file):
    return loaded(file).canonical_spec()


def studies():
    return {name: spec_of(EXAMPLES / "studies" / f"{name}.yaml") for name in EMBEDDED}


@pytest.fixture
def without_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("an example was checked over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_promised_examples_are_there():
    promised = {"gemma-2-2b", "gemma-3-270m-scope", "gpt2-small", "planted", *EMBEDDED}
    promised |= {"llama-scope", "gemma-scope-attention", "gemma-scope-2-transcoder", "pythia-70m"}
    promised |= {"france-chat"}
    assert {file.parent.name for file in FILES} >= promised
    assert {file.stem for file in FILES if file.parent.name == "studies"} == set(EMBEDDED)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_an_example_validates_offline(file, without_network):
    (item,) = load_admitted(file, root_of(file, None))
    spec = item.manifest.canonical_spec()
    assert item.manifest.kind == "Experiment"
    assert spec["prompts"]["target"]["texts"] and spec["prompts"]["neutral"]["texts"]
    assert "steering" in spec or "matrix" in spec, "an example shows the whole journey"


def test_the_sweep_stands_for_eight_experiments_of_four_captures():
    found = cells(spec_of(EXAMPLES / "sweep" / "experiment.yaml"))
    assert len(found) == 8 and not any("steering" in cell.spec for cell in found)
    captures = {
        canonical_json({name: cell.spec[name] for name in ("model", "hook", "prompts")})
        for cell in found
    }
    assert len(captures) == 4


def test_no_two_examples_share_a_name():
    names = [loaded(file).key for file in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_study_asks_of_the_same_model_what_its_example_asks_with_more_openings(name):
    study, small = studies()[name], spec_of(EXAMPLES / name / "experiment.yaml")
    assert len(study["steering"]["prompts"]["texts"]) == STUDY_OPENINGS
    assert study["steering"]["randomDraws"] >= 3
    assert {"systemPrompt", "siblings"} <= set(study["steering"])
    assert study["steering"]["strengthUnit"] == "nextTokenKl"
    for field in ("model", "hook", "positions", "aggregation", "selection", "mapping", "gate"):
        assert study[field] == small[field], field
    for condition in ("target", "neutral"):
        assert study["prompts"][condition]["texts"] == small["prompts"][condition]["texts"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_prompts_are_as_many_as_told_and_in_one_set_only(name):
    spec = studies()[name]
    small = spec_of(EXAMPLES / name / "experiment.yaml")
    sets = [
        spec["prompts"]["target"]["texts"],
        spec["prompts"]["neutral"]["texts"],
        spec["steering"]["prompts"]["texts"],
        small["steering"]["prompts"]["texts"],
        small["steering"]["neutralText"]["texts"],
        packaged_texts("neutral"),
        packaged_texts("placebo"),
    ]
    own = sets[3]
    if name == "france":  # the demo: as many as four minutes allow, the rest from the studies
        assert own[20:] == sets[2][:46]
        sets[3] = own[:20]
    assert [len(texts) for texts in sets] == [200, 200, STUDY_OPENINGS, 20, 4, 40, 2]
    distinct = {normalised(text) for texts in sets for text in texts}
    assert len(distinct) == sum(map(len, sets))


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_study_takes_the_packaged_neutral_texts_and_none_holds_a_word_of_it(name):
    steering = studies()[name]["steering"]
    assert "neutralText" not in steering
    for field in ("lexicon", "siblings"):
        words = steering[field]["texts"]
        assert packaged_neutral_texts(words) == packaged_texts("neutral")
        pattern = lexicon_pattern(words)
        assert not [text for text in packaged_texts("placebo") if pattern.search(folded(text))]


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_word_of_the_concept_or_its_siblings_is_there_before_steering(name):
    openings = studies()[name]["steering"]["prompts"]["texts"]
    for concept, spec in studies().items():
        for field in ("lexicon", "siblings"):
            pattern = lexicon_pattern(spec["steering"][field]["texts"])
            assert [text for text in openings if pattern.search(text)] == [], (concept, field)
    own = lexicon_pattern(studies()[name]["steering"]["lexicon"]["texts"])
    neutral = studies()[name]["prompts"]["neutral"]["texts"]
    assert [text for text in neutral if own.search(text)] == []


@pytest.mark.parametrize("name", ["weather", "code"])
def test_the_two_sets_mirror_one_another_in_length(name):
    prompts = studies()[name]["prompts"]
    target, neutral = (
        sum(len(text.split()) for text in prompts[condition]["texts"]) / 200
        for condition in ("target", "neutral")
    )
    assert abs(target - neutral) < 1


@pytest.mark.parametrize("name", ["france", "weather", "code"])
def test_prompts_that_mirror_one_another_line_by_line_fall_on_one_side(name):
    for spec in (studies()[name], spec_of(EXAMPLES / name / "experiment.yaml")):
        prompts = prompts_of(spec["prompts"])
        splits = Splits.model_validate(spec["splits"]).of_prompts(prompts)
        assert splits[:200] == splits[200:] and splits.count("test") == 200


def test_the_coin_toss_is_what_its_script_makes_of_the_other_prompts():
    source = EXAMPLES / "coin-toss" / "toss.py"
    module_spec = importlib.util.spec_from_file_location("toss", source)
    toss = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(toss)
    for name, content in toss.files().items():
        assert (source.parent / "prompts" / name).read_text("utf-8").splitlines() == content
