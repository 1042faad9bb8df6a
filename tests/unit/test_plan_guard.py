"""What an apply refuses until it is confirmed, on plans built by hand."""

import pytest

from loopscope.controller.apply.planned import (
    FieldChange,
    Planned,
    PlannedObject,
    PlannedStage,
)
from loopscope.controller.plan.requests import DISCARD_SECONDS_MAX, guard
from loopscope.specs.keys import Key
from loopscope.state.db.objects import Protected
from loopscope.state.failures import TerminalFailure

X, Y = (Key("Experiment", "default", name) for name in "xy")
OWN = FieldChange("spec.topK", 5, 6)
DEFAULT = FieldChange("spec.topK", 5, 6, is_default=True)


def stage(root, seconds=0.0, state="to do", **more):
    key = Key("Mapping", "default", f"{root.name}-mapping")
    return PlannedStage(key, root, state, discards_seconds=seconds, **more)


def planned(*stages, objects=()):
    return Planned(tuple(objects), stages)


def edited(key, *changes):
    return PlannedObject(key, "configured", changes)


def test_little_work_is_discarded_without_a_word():
    plan = planned(stage(X, DISCARD_SECONDS_MAX / 2), stage(Y, DISCARD_SECONDS_MAX / 2))
    assert plan.discards_seconds == DISCARD_SECONDS_MAX
    guard(plan, confirm=False, protected=[])


def test_much_work_is_discarded_only_when_confirmed():
    plan = planned(stage(X, DISCARD_SECONDS_MAX), stage(Y, 90.0), stage(Y))
    guard(plan, confirm=True, protected=[])
    with pytest.raises(TerminalFailure) as refused:
        guard(plan, confirm=False, protected=[])
    assert refused.value.reason == "ConfirmationNeeded"
    seconds = f"{DISCARD_SECONDS_MAX:.0f}"
    assert f"(mapping/x-mapping {seconds} s, mapping/y-mapping 90 s)" in str(refused.value)
    minutes = f"{plan.discards_seconds / 60:.0f} min"
    assert minutes in str(refused.value)


def test_no_work_of_a_protected_object_is_discarded_also_when_confirmed():
    plan = planned(stage(Y, 1.0), stage(X, 2.0))
    with pytest.raises(Protected) as refused:
        guard(plan, confirm=True, protected=[Y, X])
    assert refused.value.reason == "Protected"
    assert str(refused.value).startswith("Protected: experiment/x carries"), "the first by name"
    assert "mapping/y-mapping 1 s, mapping/x-mapping 2 s" in str(refused.value)
    guard(planned(stage(X, 0.0)), confirm=False, protected=[X])
    guard(plan, confirm=False, protected=[])


def test_work_that_another_rule_makes_again_is_made_again_only_when_confirmed():
    plan = planned(stage(X, 1.0, rule="mapping revision 1 -> 2"))
    assert plan.needs_confirmation and plan.of_older_rules == list(plan.stages)
    guard(plan, confirm=True, protected=[])
    with pytest.raises(TerminalFailure, match="mapping revision 1 -> 2") as refused:
        guard(plan, confirm=False, protected=[])
    assert refused.value.reason == "ConfirmationNeeded"


def test_a_new_default_needs_leave_only_where_it_would_discard_work():
    objects = [edited(X, OWN, DEFAULT), edited(Y, DEFAULT), PlannedObject(Y, "unchanged")]
    plan = planned(stage(X, 1.0), stage(Y, 0.0), objects=objects)
    assert plan.of_older_defaults == [objects[0]]
    assert plan.needs_confirmation
    own = planned(stage(X, 1.0), objects=[edited(X, OWN)])
    assert own.of_older_defaults == [] and not own.needs_confirmation


def test_stages_are_found_by_their_states():
    first, second = stage(X, state="to do"), stage(Y, state="cached")
    plan = planned(first, second)
    assert plan.of("to do", "unknown") == [first]
    assert plan.of("cached") == [second]
