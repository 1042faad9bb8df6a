"""Equal meaning, equal digest; and only what is declared has a meaning."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.specs import actions
from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.canonical import canonical_json, digest

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value):
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_fields_does_not_matter(value):
    assert digest(shuffled(value)) == digest(value)


def test_the_order_of_a_list_does_matter():
    assert digest([1, 2]) != digest([2, 1])


def test_the_canonical_form_is_compact_sorted_and_readable():
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_different_values_have_different_digests():
    values = [None, False, 0, "0", "", [], {}, [[]], {"a": None}, 0.1, "null", "false"]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_has_no_digest(value):
    with pytest.raises(ValueError):
        digest({"a": value})


def test_the_payload_does_not_enter_the_digest():
    declared = {"model": "identity", "hook": "h"}
    here = Action("capture", declared, {"model": {"folder": "/home/a"}})
    there = Action("capture", declared, {"model": {"folder": "/home/b"}, "more": 1})
    assert here.digest == there.digest


def test_stage_declared_fields_and_code_revision_enter_the_digest(monkeypatch):
    digests = [Action(stage, {"a": 1}, {}).digest for stage in CODE_REVISIONS]
    digests.append(Action("capture", {"a": 2}, {}).digest)
    monkeypatch.setitem(actions.CODE_REVISIONS, "capture", CODE_REVISIONS["capture"] + 1)
    digests.append(Action("capture", {"a": 1}, {}).digest)
    assert len(set(digests)) == len(digests)
    assert all(len(value) == 64 for value in digests)
