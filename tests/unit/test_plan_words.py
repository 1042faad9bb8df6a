"""What a plan says before it makes finished work again, and when it has become old."""

import pytest

from loopscope.controller.apply.planned import FieldChange, Planned, PlannedObject, PlannedStage
from loopscope.controller.plan.plan_files import MOVED_SHOWN_MAX, refuse_if_moved, request_of
from loopscope.controller.plan.upgrade_words import NAMED_MAX, confirmation_words, default_words
from loopscope.specs.keys import Key
from loopscope.state.failures import TerminalFailure

X, Y = (Key("Experiment", "default", name) for name in "xy")
RULE = "mapping revision 1 -> 2"


def stage(name, root=X, state="to do", rule=None, seconds=0.0):
    key = Key("Mapping", "default", name)
    return PlannedStage(key, root, state, rule=rule, discards_seconds=seconds)


def test_before_work_is_made_again_its_rule_its_cost_and_what_rests_on_it_are_named():
    words = confirmation_words(
        Planned(
            (PlannedObject(Y, "configured", (FieldChange("spec.topK", 5, 6, is_default=True),)),),
            (
                stage("a", rule=RULE, seconds=90.0),
                stage("b", rule=RULE),
                stage("c"),
                stage("d", state="unknown"),
                stage("e", state="cached"),
                stage("f", root=Key("Experiment", "default", "z")),
                stage("g", root=Y, seconds=30.0),
            ),
        )
    )
    assert "nothing would rest on 2.0 min of finished work any more: " in words
    listed = words.split(" any more: ")[1].split(". Look with")[0]
    assert listed == (
        f"{RULE} (mapping/a, mapping/b); spec.topK: 5 -> 6 (the default changed) (experiment/y); "
        "and what rests on these (mapping/c, mapping/d, mapping/g)"
    )


def test_a_default_of_a_new_field_is_not_called_changed():
    change = FieldChange("spec.shape", None, "wide", is_default=True)
    words = default_words(change)
    assert words == 'spec.shape: (not set) -> "wide" (the field is new, with this default)'


def test_of_many_objects_the_first_are_named():
    def of(number):
        stages = tuple(stage(f"m{n:02}", rule=RULE) for n in range(number))
        return confirmation_words(Planned((), stages))

    assert f"mapping/m{NAMED_MAX - 1:02})" in of(NAMED_MAX)
    assert f"mapping/m{NAMED_MAX - 1:02} and 1 more)" in of(NAMED_MAX + 1)
    assert "what rests on these" not in of(3)


def document(**changes):
    return {
        "files": {"a.yaml": "1"}, "editions": {"mapping/m": "2"}, "code": "c",
        "stages": [{"kind": "Mapping", "name": "m", "state": "to do", "digest": "d", "why": []}],
        "objects": [], "prune": [], **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fresh", "words"),
    [
        (document(files={"a.yaml": "9", "b.yaml": "1"}), "file a.yaml, file b.yaml"),
        (document(editions={}), "object mapping/m"),
        (document(code="d", files={}), "Loopscope itself, file a.yaml"),
        (document(prune=["x"]), "what would run"),
        (document(objects=["x"]), "what would run"),
        (document(stages=[]), "what would run"),
        (document(files={}, stages=[]), "file a.yaml"),
    ],
)
def test_a_plan_that_has_become_old_names_what_moved(fresh, words):
    with pytest.raises(TerminalFailure) as refused:
        refuse_if_moved(document(), fresh)
    assert refused.value.reason == "PlanOutdated"
    assert f"since the plan was made: {words}; plan again" in str(refused.value)


def test_a_plan_that_says_the_same_with_other_estimates_still_holds():
    stages = [{**document()["stages"][0], "why": ["other"], "estimatedSeconds": 5}]
    refuse_if_moved(document(), document(stages=stages))


def test_of_much_that_moved_the_first_is_named():
    many = {f"{n:02}.yaml": "1" for n in range(MOVED_SHOWN_MAX + 2)}
    with pytest.raises(TerminalFailure) as refused:
        refuse_if_moved(document(files=many), document(files={}))
    last = f"file {MOVED_SHOWN_MAX - 1:02}.yaml and 2 more; plan again"
    assert last in str(refused.value)


@pytest.mark.parametrize("field", ["forceConflicts", "prune", "allowEmpty"])
def test_a_plan_is_applied_with_the_options_that_it_was_made_with(field):
    given = {
        "sources": [{"filename": "a.yaml", "root": "/r"}], "namespace": None, "manager": "apply",
        "forceConflicts": False, "prune": False, "allowEmpty": False,
    }  # fmt: skip
    found = request_of({"request": {**given, field: True}}, confirm=True)
    assert [(str(one.path), str(one.root)) for one in found.sources] == [("a.yaml", "/r")]
    flags = {
        "forceConflicts": found.applier.force, "prune": found.prune,
        "allowEmpty": found.allow_empty,
    }  # fmt: skip
    assert flags == {**dict.fromkeys(flags, False), field: True}
    assert (found.applier.manager, found.namespace, found.confirm) == ("apply", None, True)
    for broken in ({field: 1}, {"sources": []}, {"manager": 5}, {"namespace": 5}):
        with pytest.raises(ValueError, match="not whole"):
            request_of({"request": {**given, **broken}}, confirm=False)
