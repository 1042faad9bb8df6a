"""What an apply would make of one object, by hand."""

from dataclasses import replace

import pytest

from loopscope.controller.apply.intents import Intent
from loopscope.specs.keys import PROTECT_ANNOTATION
from tests.hand_built import stored

OLD = replace(stored("Mapping", "m", {"topK": 5}), labels={"a": "1"}, annotations={"n": "x"})


def intent(old=OLD, spec=None, labels=None, annotations=None):
    labels = {"a": "1"} if labels is None else labels
    annotations = {"n": "x"} if annotations is None else annotations
    return Intent(OLD.key, old, spec or {"topK": 5}, labels, annotations, "apply", {}, (), ())


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [
        (intent(old=None), "created"),
        (intent(), "unchanged"),
        (intent(spec={"topK": 6}), "configured"),
        (intent(labels={}), "configured"),
        (intent(annotations={"n": "y"}), "configured"),
    ],
)
def test_an_apply_reports_whether_anything_of_the_object_changes(wanted, outcome):
    assert wanted.outcome == outcome


def test_an_object_is_only_protected_if_its_spec_stays_and_the_annotation_is_true():
    protected = {PROTECT_ANNOTATION: "true"}
    assert intent(annotations=protected).only_protects
    assert not intent(annotations={PROTECT_ANNOTATION: "false"}).only_protects
    assert not intent().only_protects
    assert not intent(spec={"topK": 6}, annotations=protected).only_protects
    assert not intent(old=None, annotations=protected).only_protects


def test_the_changes_are_those_of_spec_labels_and_annotations_by_name():
    changed = intent(spec={"topK": 6}, labels={"b": "2"}, annotations={"n": "y"}).changes
    assert [(c.field, c.before, c.after) for c in changed] == [
        ("spec.topK", 5, 6),
        ("metadata.labels.a", "1", None),
        ("metadata.labels.b", None, "2"),
        ("metadata.annotations.n", "x", "y"),
    ]
    assert intent().changes == []
