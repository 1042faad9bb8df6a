"""A scoring in an experiment: what is asked of texts is made once, and no text again for it."""

import json

import pytest

from loopscope.specs.errors import InvalidSpec
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.outcomes import OF_TEXTS, leading_column
from loopscope.specs.ratings import FORMAT
from loopscope.specs.scoring import JUDGE_PROMPT, ScoringRules
from loopscope.specs.yaml.loading import load_path
from loopscope.worker.stages.scores.measures import MEASURES
from tests.simulated import experiment_spec, settled_experiment, texts

WORDS = {"lexicon": texts("Paris")}
JUDGE = {"endpoint": "http://127.0.0.1:1/v1", "model": "m", "question": "Is it?"}
EMBEDDING = {"concept": texts("France"), "siblings": texts("Japan")}


@pytest.fixture
def settled(tmp_path):
    return settled_experiment(tmp_path / "state")


def asked(**scoring):
    return experiment_spec(scoring={"repetition": False, **scoring})


def test_it_is_made_behind_the_steering_and_generates_nothing(settled):
    settled.apply(asked(repetition=True))
    assert settled.settle() == ["scores", "scoring"]
    assert settled.get("france-scoring").ready
    assert settled.get("france").ready


def test_one_more_outcome_runs_alone_and_asks_no_judge_again(settled):
    settled.apply(asked(judge=JUDGE))
    settled.settle()
    settled.apply(asked(judge=JUDGE, words=WORDS))
    assert settled.settle() == ["scores", "scoring"]
    settled.apply(asked(judge=JUDGE, words=WORDS, primary="judge"))
    assert settled.settle() == ["scoring"]


def test_where_a_judge_is_reached_makes_no_other_work(settled):
    settled.apply(asked(judge=JUDGE))
    settled.settle()
    moved = {**JUDGE, "endpoint": "https://example.org/v1", "requestsPerMinute": 5}
    settled.apply(asked(judge={**moved, "apiKeyVariable": "KEY", "maxRequests": 7}))
    assert settled.settle() == []


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"question": "Was it?"}, {"prompt": f"{JUDGE_PROMPT} "}]
)
def test_another_judge_is_asked_anew(settled, change):
    settled.apply(asked(judge=JUDGE))
    settled.settle()
    settled.apply(asked(judge={**JUDGE, **change}))
    assert settled.settle() == ["scores", "scoring"]


def test_other_texts_are_scored_anew(settled):
    settled.apply(asked(repetition=True))
    settled.settle()
    steering = {**experiment_spec()["steering"], "strengths": [0.25]}
    settled.apply(experiment_spec(scoring={"repetition": True}, steering=steering))
    assert settled.settle() == ["steering", "scores", "scoring"]


def test_equal_questions_of_two_experiments_are_one_job(settled):
    settled.apply(asked(words=WORDS))
    settled.apply(asked(words=WORDS), name="again")
    ran = settled.settle()
    assert ran.count("scores") == ran.count("scoring") == 1


def test_where_steering_did_not_run_there_is_nothing_to_score(settled):
    gate = {**experiment_spec()["gate"], "minSubfeatures": 9, "policy": "enforce"}
    settled.apply(experiment_spec(gate=gate, scoring={"repetition": True}))
    assert "scoring" not in settled.settle()
    made = settled.get("france-scoring")
    assert made.ready and made.status.summary["verdict"] == "NotTestable"
    assert settled.get("france").ready


def ratings_of(steering, rater="ada"):
    row = {"prompt_id": "opening-0000", "arm": "none", "strength": 0.0, "sample": 0, "rating": 1}
    return json.dumps(
        {"format": FORMAT, "experiment": "france", "steering": steering, "rater": rater,
         "date": "2026-11-30", "seed": 1, "ratings": [row]}
    )  # fmt: skip


def test_ratings_of_other_texts_stall_it_and_those_of_these_are_scored(settled):
    foreign = {"files": ["a.json"], "sets": [ratings_of("0" * 64)]}
    settled.apply(asked(ratings=foreign))
    settled.settle()
    scoring = settled.get("france-scoring")
    assert scoring.stalled
    assert "a.json rates texts of the steering 000000000000" in str(scoring.status.conditions)
    own = settled.get("france-steering").status.artifact.content_digest
    settled.apply(asked(ratings={"files": ["a.json"], "sets": [ratings_of(own)]}))
    assert settled.settle() == ["scores", "scoring"]


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        ({"repetition": False}, "asks for no outcome"),
        ({"repetition": True, "primary": "judge"}, "primary is judge, which is not given"),
        ({"embedding": EMBEDDING, "primary": "embedding"}, "was not validated"),
        ({"embedding": {**EMBEDDING, "siblings": texts("France")}}, "count as lexicon and as sib"),
        ({"judge": {**JUDGE, "prompt": "{text} {first}"}}, "prompt lacks {question}, {second}"),
        ({"judge": {**JUDGE, "maxCost": 1.0}}, "maxCost needs price"),
        ({"judge": {**JUDGE, "endpoint": "file:///etc/passwd"}}, "endpoint"),
        ({"judge": {**JUDGE, "endpoint": "http://user:word@host/v1"}}, "endpoint"),
        ({"judge": {**JUDGE, "apiKeyVariable": "my key"}}, "apiKeyVariable"),
        ({"primary": "repetition", "repetition": True}, "primary"),
    ],
)
def test_what_cannot_be_asked_is_refused(scoring, words):
    with pytest.raises(ValueError) as refused:
        ScoringRules.model_validate(scoring)
    assert words in str(refused.value)


def test_without_steering_it_is_refused():
    spec = asked(repetition=True)
    del spec["steering"]
    with pytest.raises(ValueError, match="scoring reads what was generated under steering"):
        ExperimentSpec.model_validate(spec)


def test_one_person_at_one_time_counts_once():
    one = ratings_of("0" * 64)
    with pytest.raises(ValueError, match="of one person at one time twice"):
        ScoringRules.model_validate({"ratings": {"files": ["a", "b"], "sets": [one, one]}})


def test_every_outcome_has_a_measure_and_what_leads_is_one_of_its_columns():
    assert set(MEASURES) == set(OF_TEXTS)
    assert all(
        one.leads in {"", *(column.name for column in one.columns)} for one in OF_TEXTS.values()
    )
    names = [column.name for one in OF_TEXTS.values() for column in one.columns]
    assert len(set(names)) == len(names)
    assert leading_column("concept") == "concept"


def test_files_of_ratings_are_read_beside_the_spec(tmp_path):
    (tmp_path / "a.json").write_text(ratings_of("1" * 64))
    scoring = {"kind": "Scoring", "apiVersion": "loopscope.dev/v1alpha1", "metadata": {"name": "s"}}
    spec = {"steeringRef": {"name": "x"}, "ratings": {"files": ["a.json"]}}
    (tmp_path / "s.yaml").write_text(json.dumps({**scoring, "spec": spec}))
    (found,) = load_path(tmp_path / "s.yaml", tmp_path)
    assert json.loads(found.manifest.spec.ratings.sets[0])["rater"] == "ada"
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InvalidSpec, match=r"a.json: format"):
        load_path(tmp_path / "s.yaml", tmp_path)
