"""Changes in words, as ``plan`` and ``why`` give them."""

from dataclasses import replace

import pytest

from loopscope.controller.plan.reasons import (
    change_words,
    changed_names,
    declared_before,
    reasons,
    short,
    spec_changes,
)
from loopscope.reconcilers.plan import Blocked, Observed, Snapshot
from tests.hand_built import stored


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "(not set)"),
        (0.5, "0.5"),
        ("é", '"é"'),
        (list(range(8)), "[0, 1, 2, 3, 4, 5, 6, 7]"),
        (list(range(9)), "[9 items]"),
        ("x" * 300, None),
    ],
)
def test_a_value_is_shown_as_json_and_cut_where_it_is_long(value, words):
    found = short(value)
    if words is None:
        assert found == f'"{value[:119]}…'
    else:
        assert found == words


def test_only_the_values_that_differ_are_named():
    assert changed_names({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": 5}) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("topK", 5, 6, "topK: 5 -> 6"),
        ("capture", "a", "b", "the content of the capture changed"),
        ("sides", ["a"], ["b"], "the decompositions changed"),
        ("rules", {"a": 1, "b": {"c": 2, "e": 0}}, {"a": 1, "b": {"c": 3, "e": 0}},
         "rules.b.c: 2 -> 3"),
        ("rules", {"a": 1}, {"b": 2}, "rules.a: 1 -> (not set), rules.b: (not set) -> 2"),
        ("arms", ["a", "b", "c"], ["a", "c", "b"], 'arms: ["a", "b", "c"] -> ["a", "c", "b"]'),
        ("arms", list("abcd"), list("abe"), "arms: 1 new, 2 gone, of 3"),
        ("texts", [{"a": 1}], [{"a": 2}], "texts: 1 new, 1 gone, of 1"),
        ("gate", {}, {"rule": "cosine"}, 'gate.rule: (not set) -> "cosine"'),
    ],
)  # fmt: skip
def test_a_change_is_said_by_its_name_and_its_values(name, before, after, words):
    assert change_words(name, before, after) == words


def test_of_a_spec_the_changed_fields_are_named_and_of_a_new_one_nothing():
    old = stored("Mapping", "m", {"topK": 5, "minCosine": 0.3, "refs": {"a": 1}})
    new = stored("Mapping", "m", {"topK": 5, "minCosine": 0.4, "refs": {"b": 1}})
    assert spec_changes(old, new) == (
        "spec.minCosine: 0.3 -> 0.4",
        "spec.refs.a: 1 -> (not set)",
        "spec.refs.b: (not set) -> 1",
    )
    assert spec_changes(old, old) == spec_changes(None, new) == ()


def test_of_an_edit_before_anything_was_made_both_are_said():
    old = stored("Mapping", "m", {"topK": 5})
    waits = Blocked("InputsNotReady", "waits for decomposition/c")
    for topk, said in ((6, ("spec.topK: 5 -> 6",)), (5, ())):
        snapshot = Snapshot(stored("Mapping", "m", {"topK": topk}), 5.0, {})
        words = reasons(None, None, old, snapshot, waits, Observed())
        assert words == (*said, "nothing was made for it yet")


def test_what_work_was_made_from_is_derived_again_or_read_from_its_newest_job(settled):
    record, now = settled.get("france-mapping"), settled.clock.now()
    job = next(job for job in settled.jobs() if job.stage == "capture")
    with settled.state.database.read() as connection:
        values, how = declared_before(connection, record, now)
        assert how == "declared" and values["minCosine"] == record.spec["minCosine"]
        elsewhere = replace(record, wanted_digest=job.digest)
        assert declared_before(connection, elsewhere, now) == (job.payload, "payload")
        assert declared_before(connection, replace(record, wanted_digest="d" * 64), now) is None
