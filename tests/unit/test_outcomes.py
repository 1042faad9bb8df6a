"""Each outcome that a spec can ask for is measured, and its revision counts for those who ask."""

from dataclasses import replace

from loopscope.specs.outcomes import OUTCOMES, Outcome, asked_of_outcomes
from loopscope.worker.stages.steering.outcomes.measures import MEASURES

SPEC = {"lexicon": {"texts": ["France"]}}


def test_what_a_spec_can_ask_for_is_what_is_measured():
    assert list(OUTCOMES) == list(MEASURES)


def test_every_spec_asks_for_the_lexicon_and_siblings_may_be_missing():
    assert asked_of_outcomes(SPEC) == {"lexicon": ["France"], "siblings": []}
    with_siblings = SPEC | {"siblings": {"texts": ["Berlin"]}}
    assert asked_of_outcomes(with_siblings)["siblings"] == ["Berlin"]


def test_a_risen_revision_is_other_work_only_for_those_who_ask():
    judge = Outcome(lambda spec: {"judge": spec["judge"]}, ())
    outcomes = {**OUTCOMES, "judge": judge}
    risen = {**OUTCOMES, "judge": replace(judge, revision=2)}
    asking = SPEC | {"judge": "some model"}
    assert asked_of_outcomes(SPEC, outcomes) == asked_of_outcomes(SPEC, risen)
    assert asked_of_outcomes(asking, outcomes) != asked_of_outcomes(asking, risen)
