"""When arms are letters, and which letter is whose."""

from dataclasses import replace

import pytest

from loopscope.reconcilers.blinding import withheld
from loopscope.reconcilers.plan import Observed, Plan, Wanted
from loopscope.specs.actions import Action
from loopscope.specs.blinding import arms_by_letter, is_reached, letters_of
from loopscope.specs.registration import EARLY, FIXED, InForce, in_force
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.records import ArtifactRecord
from tests.hand_built import stored

ARMS = ["none", "coarse", "fine", "multi", "random-0"]
RULE = EARLY.format(every=20, supported=40, refuted=40, no_difference=20)


def plan(openings=60, samples=3, stopping=FIXED):
    return {
        "openings": openings, "samples_per_opening": samples, "arms": ARMS, "strengths": [1.0],
        "strength_unit": "absolute", "min_difference": 0.15, "stopping": stopping,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("openings", "samples", "reached"),
    [(60, 3, True), (61, 4, True), (59, 3, False), (60, 2, False), (20, 9, False)],
)
def test_fewer_openings_or_fewer_samples_are_not_what_was_registered(openings, samples, reached):
    found = is_reached(plan(), openings=openings, declared=openings, samples=samples, every=None)
    assert found is reached


def test_a_look_of_the_registered_rule_may_say_a_word_before_all_openings():
    early = {"openings": 20, "declared": 60, "samples": 3}
    assert is_reached(plan(stopping=RULE), **early, every=20)
    assert not is_reached(plan(stopping=RULE), **early, every=2)
    assert not is_reached(plan(), **early, every=20)


def test_a_rule_does_not_make_a_shorter_list_long_enough():
    assert not is_reached(plan(stopping=RULE), openings=20, declared=20, samples=3, every=20)


def test_every_arm_has_one_letter_whatever_their_order_in_the_spec():
    letters = letters_of("d1", ARMS)
    assert sorted(letters.values()) == list("ABCDE")
    assert letters_of("d1", reversed(ARMS)) == letters
    assert {arm: letter for letter, arm in arms_by_letter("d1", ARMS).items()} == letters


def test_another_registration_draws_another_order():
    orders = {tuple(letters_of(f"d{n}", ARMS).items()) for n in range(50)}
    assert len(orders) > 30
    firsts = {arms_by_letter(f"d{n}", ARMS)["A"] for n in range(50)}
    assert firsts == set(ARMS)


def test_more_arms_than_letters_have_two_letters():
    letters = letters_of("d", [f"random-{n}" for n in range(30)])
    assert {"Z", "AA", "AD"} <= set(letters.values()) and len(set(letters.values())) == 30


def test_what_is_in_force_is_the_last_intention_and_what_opened_that_one():
    first, second = {"digest": "1"}, {"digest": "2"}
    opened = {"digest": "3", "opened": "1"}
    assert in_force([]) is None
    assert in_force([first]).opening is None
    assert in_force([first, opened]).opening is opened
    found = in_force([first, opened, second])
    assert (found.intention, found.opening) == (second, None)
    assert in_force([first, second, opened]).opening is None


WORK = Action("steering", {}, {"samplesPerPrompt": 3})
TOLD = {"verdict": "Supported", "best_arm": "multi"}


def done(openings, **registered):
    """Return the plan of a steering that ended, and what it is without what is blinded."""
    artifact = ArtifactRecord("steering", WORK.digest, "c", {}, {**TOLD, "n": openings}, 0.0)
    conditions = (Condition("Ready", "True", "Succeeded", "steering is done", 1, 0.0),)
    reference = ArtifactReference("steering", WORK.digest, "c")
    plan_ = Plan(
        status=Status(1, conditions, artifact.metrics, {}, reference), wanted_digest=WORK.digest
    )
    found = InForce(**registered) if registered else None
    return plan_, withheld(plan_, Wanted(WORK, {}), Observed(artifact, registered=found))


def test_a_smaller_steering_is_ready_without_a_number_and_its_artifact_is_kept():
    _, shown = done(20, intention={"digest": "d", "plan": plan()}, opening=None)
    assert shown.status.artifact is None and shown.wanted_digest == WORK.digest
    assert set(shown.status.summary) == {"blinded", "n", "reason"}
    assert "Supported" not in str(shown) and "multi" not in str(shown)
    record = replace(stored("Steering", "x-steering", {}), status=shown.status)
    assert (record.ready, record.stage_word) == (True, "Blinded")


@pytest.mark.parametrize(
    "registered",
    [
        {},
        {"intention": {"digest": "d", "plan": plan(openings=20)}, "opening": None},
        {"intention": {"digest": "d", "plan": plan()}, "opening": {"digest": "e", "opened": "d"}},
    ],
)
def test_what_was_not_registered_or_reached_or_opened_is_shown(registered):
    before, shown = done(20, **registered)
    assert shown == before
