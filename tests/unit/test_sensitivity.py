"""What a verdict says under another choice is what the rules say of that choice."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.numerics.verdict.cells import ScoredCells
from loopscope.numerics.verdict.decision import VerdictRules, judge
from loopscope.numerics.verdict.evidence import evidence_of
from loopscope.numerics.verdict.fairness import budget_errors
from loopscope.specs.keys import Key
from loopscope.specs.lexicon import inflected, lexicon_pattern, mentions
from loopscope.specs.status import Condition, Status
from loopscope.state.db import objects
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MISSING
from loopscope.views.other_runs import other_runs
from loopscope.views.scored_cells import scored_cells
from loopscope.views.sensitivity.lexicon import Worded, lexicon_looks
from loopscope.views.sensitivity.look import Look
from loopscope.views.sensitivity.looks import looks_at
from loopscope.views.sensitivity.other_runs import other_run_looks
from loopscope.views.sensitivity.outcomes import outcome_looks
from loopscope.views.sensitivity.rows import NOT_TESTS, look_rows, looks_sentences
from loopscope.views.sensitivity.stored_run import StoredRun, stored_run
from loopscope.worker.stages.steering.verdict_record import decision_record
from tests.hand_built import stored
from tests.unit import reports_case

ARMS = {"none": 0.05, "coarse": 0.35, "fine": 0.4, "multi": 0.75}
COSINES = {"coarse~multi": 0.9, "fine~multi": 0.9, "coarse~fine": 0.6}
STRENGTHS = (0.1, 0.2)
OPENINGS, SAMPLES_EACH = 40, 2
WORDS = ["Paris", "cheese", "New York", "York", "cafe", "cafes"]
SAID = ["Paris", "paris", "cheese", "New York", "cafes", "cheese and Paris"]
SIBLING = "Berlin"
RULES = VerdictRules(0.15, 0.98)
SPEC: dict[str, Any] = {
    "prompts": {"texts": [f"opening number {n} says" for n in range(OPENINGS)]},
    "splits": {},
    "lexicon": {"texts": WORDS},
    "siblings": {"texts": [SIBLING]},
    "strengthUnit": "nextTokenKl",
}


def tables() -> tuple[pandas.DataFrame, pandas.DataFrame, pandas.DataFrame]:
    """Return scores, samples and neutral texts of a run whose texts say what was scored."""
    rng = np.random.default_rng(11)
    rows: list[dict[str, Any]] = []
    neutral: list[dict[str, Any]] = []
    pattern = lexicon_pattern(WORDS)
    for arm, rate in ARMS.items():
        for strength in (0.0,) if arm == "none" else STRENGTHS:
            for number in range(8):
                budget = np.nan if arm == "none" else strength * rng.uniform(0.9, 1.1)
                kl = 0.0 if arm == "none" else budget
                neutral.append(
                    {"arm": arm, "strength": strength, "number": number, "kl": kl, "budget": budget}
                )
            for opening in range(OPENINGS):
                for sample in range(SAMPLES_EACH):
                    said = rng.choice(SAID) if rng.random() < rate else "nothing"
                    said += f" and {SIBLING}" if rng.random() < 0.3 else ""
                    text = f" that {said} is there"
                    hit = float(bool(mentions(pattern, text, SPEC["prompts"]["texts"][opening])))
                    rows.append(
                        {
                            "prompt_id": f"opening-{opening:04d}",
                            "arm": arm,
                            "strength": strength,
                            "sample": sample,
                            "text": text,
                            "concept": hit,
                            "intact": 1.0,
                            "probe": rng.random(),
                        }
                    )
    table = pandas.DataFrame(rows)
    keys = ["prompt_id", "arm", "strength", "sample"]
    samples = table[[*keys, "text"]].sample(frac=1, random_state=0)  # in any order
    return table.drop(columns="text"), samples, pandas.DataFrame(neutral)


def cells_with(concept: pandas.Series[float] | None = None, **changed: float) -> ScoredCells:
    """Return the cells as a verdict reads them, with another concept score of each text."""
    scores, _, neutral = tables()
    if concept is not None:
        scores = scores.assign(concept=concept.to_numpy())
    if "strength" in changed:
        scores = scores[scores["strength"].isin([0.0, changed["strength"]])]
        neutral = neutral[neutral["strength"].isin([0.0, changed["strength"]])]
    return scored_cells(scores, SPEC, neutral, outcomes=("concept", "intact"))


def by_the_rules(run: ScoredCells) -> tuple[Any, ...]:
    """Return what the verdict's own rules say of these scores."""
    found = judge(evidence_of(run, COSINES, {}, budget_errors(run)), RULES)
    assert found.binding is not None
    one = found.binding
    return found.verdict, one.contrast, one.estimate, one.low, one.high, one.n


def numbers(one: Look) -> tuple[Any, ...]:
    return one.verdict, one.contrast, one.estimate, one.low, one.high, one.n


@pytest.fixture(scope="module")
def run() -> StoredRun:
    scores, _, neutral = tables()
    whole = cells_with()
    evidence = evidence_of(whole, COSINES, {}, budget_errors(whole))
    verdict: Any = {**decision_record(evidence, RULES), "budget": {"errors": []}}
    found = stored_run(scores, neutral, {}, verdict, SPEC)
    assert found is not None
    return found


def hits(words: list[str]) -> pandas.Series[float]:
    """Return 1 for each text that holds one of the words, read from all texts."""
    scores, samples, _ = tables()
    keys = ["prompt_id", "arm", "strength", "sample"]
    texts = scores[keys].merge(samples, on=keys)
    pattern = lexicon_pattern(words)
    return texts["text"].map(lambda text: float(bool(mentions(pattern, text, "it says"))))


def test_a_verdict_by_another_word_list_is_that_of_all_texts_read_again(run):
    scores, samples, _ = tables()
    found = {one.setting: one for one in lexicon_looks(run, scores, samples, SPEC)}
    lists = {
        "with English plurals": inflected(WORDS),
        "without plurals of its own words": [word for word in WORDS if word != "cafes"],
        "every other word": WORDS[::2],
        "the other half of the words": WORDS[1::2],
        "without 'Paris'": [word for word in WORDS if word != "Paris"],
        "without 'New York'": [word for word in WORDS if word != "New York"],
    }
    for setting, words in lists.items():
        assert numbers(found[setting]) == by_the_rules(cells_with(hits(words))), setting
    free = hits(WORDS) * (1 - hits([SIBLING]))
    assert numbers(found["and no word of siblings"]) == by_the_rules(cells_with(free))
    assert len({one.estimate for one in found.values()}) > 3, "a world in which words matter"


def test_words_that_decide_no_text_are_one_look_with_the_declared_numbers(run):
    scores, samples, _ = tables()
    *_, last = lexicon_looks(run, scores, samples, SPEC)
    assert last.setting == "without any one of the 2 other words"  # York, cafe
    assert numbers(last) == by_the_rules(cells_with())


def test_texts_that_do_not_hold_what_was_scored_give_no_look(run):
    scores, samples, _ = tables()
    other = samples.assign(text=" that nothing is there")
    assert list(lexicon_looks(run, scores, other, SPEC)) == []


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_strength_alone_has_the_verdict_of_its_own_cells_and_budgets(run, strength):
    found = run.at_strength(strength)
    alone = by_the_rules(cells_with(strength=strength))
    one = found.binding
    assert (found.verdict, one.contrast, one.estimate, one.low, one.high, one.n) == alone
    whole = by_the_rules(cells_with())
    assert alone[2:5] != whole[2:5]


def test_another_outcome_is_judged_in_the_place_of_the_words(run):
    (probe,) = outcome_looks(run)
    values = tables()[0]["probe"]
    expected = by_the_rules(cells_with(values))
    assert numbers(probe) == expected
    assert probe.verdict == "NotTestable", "a probe that knows nothing shows no effect"


def test_an_outcome_of_a_scoring_that_needs_ratings_may_not_answer_without(run):
    known = run.cells.outcomes["concept"]
    with_embedding = replace(
        run.cells, outcomes={**run.cells.outcomes, "embedding": known, "embedding_hit": known}
    )
    found = {one.setting: one for one in outcome_looks(replace(run, cells=with_embedding))}
    assert found["embedding"].verdict == "NotTestable"
    assert "people's ratings" in found["embedding"].note
    assert numbers(found["embedding"])[1:] == by_the_rules(cells_with())[1:]


@pytest.mark.parametrize("lost", ["intact", "neutral", "multi", "verdict", "estimate"])
def test_a_verdict_that_cannot_be_had_again_is_looked_at_no_further(run, lost):
    scores, _, neutral = tables()
    verdict: Any = dict(run.verdict)
    if lost == "intact":
        scores = scores.drop(columns="intact")
    elif lost == "multi":
        scores = scores[scores["arm"] != "multi"]
    elif lost == "verdict":
        verdict["verdict"] = "Refuted"
    elif lost == "estimate":
        verdict["estimate"] += 0.01
    kept = None if lost == "neutral" else neutral
    assert stored_run(scores, kept, {}, verdict, SPEC) is None


PART = st.sampled_from(["new", "york", "city", "a-b", "b", "==", "c++", "cafés"])
PHRASE = st.lists(PART, min_size=1, max_size=3).map(" ".join)


@given(
    words=st.lists(PHRASE, min_size=1, max_size=6, unique=True),
    chosen=st.lists(st.booleans(), min_size=6, max_size=6),
    more=st.lists(PHRASE, max_size=2),
    texts=st.lists(st.lists(PART, max_size=6).map(" ".join), min_size=1, max_size=4),
)
def test_fewer_and_other_words_are_found_as_if_all_texts_were_read(words, chosen, more, texts):
    pattern = lexicon_pattern(words)
    pairs = [("it says", f" {text}") for text in texts]
    found = [frozenset(one.word for one in mentions(pattern, text, b)) for b, text in pairs]
    worded = Worded(None, {"lexicon": {"texts": words}}, pandas.DataFrame(), pairs, found)  # type: ignore[arg-type]
    wanted = [word for word, kept in zip(words, chosen, strict=False) if kept] + more
    if wanted:
        whole = lexicon_pattern(wanted)
        expected = [float(bool(mentions(whole, text, before))) for before, text in pairs]
        assert worded.hits(wanted).tolist() == expected


# -- other runs ---------------------------------------------------------------------------------

SAMPLING = {"temperature": 0.8, "topK": 50, "topP": 1.0, "greedy": False, "seed": 0}
EXPERIMENT: dict[str, Any] = {
    "model": {"name": "m"},
    "mapping": {"minCosine": 0.3},
    "gate": {"minSubfeatures": 3, "policy": "report"},
    "selection": {"top": 5},
    "steering": {
        "sampling": SAMPLING,
        "strengthUnit": "nextTokenKl",
        "prompts": {"texts": ["I went"]},
        "lexicon": {"texts": WORDS},
        "minDifference": 0.15,
    },
}
GATE: Any = {
    "steered": 3,
    "anchors": [
        {"coarse": 3, "children": [1, 2]},
        {"coarse": 5, "children": [7]},
        {"coarse": 8, "children": []},
    ],
}
NORMS = pandas.DataFrame({"arm": ["coarse", "multi", "multi"], "norm": [1.0, 8.0, 4.0]})


def experiment(name: str, ready: bool = True, **changes: Any) -> Any:
    spec = {**EXPERIMENT, **{k: v for k, v in changes.items() if k != "steering"}}
    spec["steering"] = {**EXPERIMENT["steering"], **changes.get("steering", {})}
    record = stored("Experiment", name, spec)
    summary = {"verdict": "Refuted", "contrast": "multi-fine", "estimate": -0.2, "low": -0.3,
               "high": -0.1, "n": 40, "anchor": 5, "anchor_children": 1}  # fmt: skip
    return replace(record, status=ready_status(summary, ready))


def ready_status(summary: dict[str, Any], ready: bool = True) -> Status:
    condition = Condition("Ready", "True" if ready else "False", "Told", "", 1, 0.0)
    return Status(1, (condition,), summary)


def looks_beside(*others: Any) -> dict[tuple[str, str], Look]:
    runs = other_runs(experiment("own"), others)
    found = other_run_looks(runs, EXPERIMENT["steering"], GATE, NORMS)
    return {(one.axis, one.setting): one for one in found}


def test_what_nobody_ran_says_what_to_write_and_has_no_number():
    found = looks_beside()
    notes = {place: one.note for place, one in found.items()}
    write = "write steering.sampling.temperature:"
    temperatures = {
        "temperature 0.3, top-k 50, top-p 1, seed 0": f"{write} 0.3",
        "temperature 1, top-k 50, top-p 1, seed 0": f"{write} 1.0",
    }
    assert {place[1]: note for place, note in notes.items() if place[0] == "sampling"} == {
        "greedy": "write steering.sampling.greedy: true",
        **temperatures,
    }
    assert notes["anchor", "C-5 with 1 child"] == "write mapping.anchor: 5"
    assert "no fine arm" in notes["anchor", "C-8 with 0 children"]
    assert ("anchor", "C-3 with 2 children") not in notes, "it is the declared one"
    assert "[4.0, 8.0]" in notes["strength", "all arms at equal norm"]
    assert all(
        one.source == "not run" and not one.verdict and one.estimate is None
        for one in found.values()
    )


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"steering": {"sampling": {**SAMPLING, "greedy": True}}}, ("sampling", "greedy")),
        (
            {"steering": {"sampling": {**SAMPLING, "seed": 4}}},
            ("sampling", "temperature 0.8, top-k 50, top-p 1, seed 4"),
        ),
        (
            {"steering": {"prompts": {"texts": ["Yes", "No"]}}},
            ("openings", "2 openings, the first 'Yes'"),
        ),
        ({"mapping": {"minCosine": 0.3, "anchor": 5}}, ("anchor", "C-5 with 1 child")),
        ({"steering": {"lexicon": {"texts": ["a"]}}}, ("lexicon", "lexicon 1 texts")),
    ],
)
def test_a_run_that_differs_in_one_choice_alone_stands_in_its_place(changes, place):
    one = looks_beside(experiment("other", **changes))[place]
    assert (one.source, one.verdict, one.note) == ("other run", "Refuted", "experiment other")
    assert (one.estimate, one.low, one.high, one.n) == (-0.2, -0.3, -0.1, 40)
    assert one.beside("Refuted").changed is False
    assert one.beside("Supported").changed is True


@pytest.mark.parametrize(
    "other",
    [
        experiment("two", mapping={}, steering={"sampling": {**SAMPLING, "greedy": True}}),
        experiment("model", model={"name": "n"}),
        experiment("rules", steering={"minDifference": 0.3}),
        experiment("running", ready=False, steering={"prompts": {"texts": ["Yes"]}}),
        experiment("same"),
        experiment("policy", gate={"minSubfeatures": 3, "policy": "enforce"}),
        experiment("beside", damage={"maxLoss": 0.1}),
    ],
    ids=lambda record: record.key.name,
)
def test_a_run_that_differs_in_two_choices_or_in_none_or_has_no_answer_is_no_look(other):
    assert looks_beside(other).keys() == looks_beside().keys()
    assert all(one.source == "not run" for one in looks_beside(other).values())


# -- words and pages ----------------------------------------------------------------------------


def test_looks_that_change_the_word_are_counted_and_named_and_called_no_tests(tmp_path):
    state, key = reports_case.build(tmp_path)
    looks = looks_at(ExperimentView.load(state, key))
    assert looks.rows[0].source == "declared"
    assert looks.judged == [], "made-up numbers that no rule gives"
    assert "do not give this verdict again" in looks_sentences(looks)[0]
    ours = (
        Look("declared", "as declared", "declared", "Supported"),
        Look("lexicon", "without 'Paris'", "same texts", "Refuted", changed=True),
        Look("outcome", "probe", "same texts", "Supported", changed=False),
        Look("sampling", "greedy", "not run"),
    )
    first, second, last = looks_sentences(replace(looks, rows=ours))
    assert first == (
        "1 of 2 other choices give another word than Supported: lexicon without 'Paris' (Refuted)."
    )
    assert second.startswith("1 more need another run")
    assert last == NOT_TESTS
    words = [row[3] for row in look_rows(ours)]
    assert words == ["Supported", "Refuted (changed)", "Supported", MISSING]


def test_an_experiment_of_the_same_namespace_is_seen_when_the_view_is_read(tmp_path):
    state, key = reports_case.build(tmp_path)
    own = ExperimentView.load(state, key).experiment
    spec = {**own.spec, "steering": {**own.spec["steering"]}}
    spec["steering"]["sampling"] = {**spec["steering"]["sampling"], "greedy": True}
    for namespace in ("default", "elsewhere"):
        other = Key("Experiment", namespace, "france-greedy")
        with state.database.write() as connection:
            objects.apply(connection, other, spec, now=1.0)
            record = objects.get(connection, other)
            assert record is not None
            objects.update_status(connection, record, ready_status({"verdict": "Refuted"}), None)
    view = ExperimentView.load(state, key)
    assert [(one.name, one.axis) for one in view.others] == [("france-greedy", "sampling")]


def test_axes_stand_together_and_the_declared_verdict_first(tmp_path):
    state, key = reports_case.build(tmp_path)
    axes = [one.axis for one in looks_at(ExperimentView.load(state, key)).rows]
    assert axes[0] == "declared"
    changes = sum(before != after for before, after in pairwise(axes))
    assert changes == len(set(axes)) - 1
    assert not re.search("declared", " ".join(axes[1:]))
