"""Who is looked at when something changes, kept in memory instead of listed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.controller.reconcile.dependants import Dependants
from loopscope.reconcilers.references import input_references, object_references
from loopscope.specs.keys import Key
from loopscope.specs.status import Status
from loopscope.state.records import ObjectRecord
from tests.simulated import capture_spec

NAMES = ("a", "b", "c")


def capture(name, model="m", generation=1):
    spec = capture_spec(model={"name": model, "source": {"folder": f"/models/{model}"}})
    return record("Capture", name, spec, generation)


def decomposition(name, capture_name, generation=1):
    spec = {"captureRef": {"name": capture_name}, "dictionary": {"path": f"/{name}"}}
    return record("Decomposition", name, spec, generation)


def record(kind, name, spec, generation):
    key = Key(kind, "default", name)
    return ObjectRecord(key, f"{kind}-{name}", generation, generation, spec, Status(), 0.0)


@pytest.fixture
def dependants():
    return Dependants()


def test_what_names_an_object_and_what_it_owns_are_known_apart(dependants):
    owned = replace(decomposition("x", "a"), owner=Key("Experiment", "default", "e"))
    dependants.learn(owned)
    assert dependants.naming(Key("Capture", "default", "a")) == {owned.key}
    assert dependants.owned_by(Key("Experiment", "default", "e")) == {owned.key}
    assert dependants.naming(Key("Capture", "default", "b")) == set()


def test_an_edit_moves_it_and_the_same_generation_is_not_read_again(dependants):
    dependants.learn(decomposition("x", "a"))
    dependants.learn(decomposition("x", "b", generation=2))
    assert dependants.naming(Key("Capture", "default", "a")) == set()
    assert dependants.naming(Key("Capture", "default", "b")) == {decomposition("x", "b").key}


def test_an_input_is_known_as_long_as_somebody_uses_it(dependants):
    first, second = capture("a"), capture("b")
    (reference,) = input_references(first)
    dependants.learn(first)
    dependants.learn(second)
    assert dependants.of_input(reference) == [first.key, second.key]
    assert list(dependants.inputs()) == [reference]
    dependants.forget(first.key)
    dependants.forget(second.key)
    dependants.forget(second.key)
    assert list(dependants.inputs()) == [] and dependants.of_input(reference) == []


steps = st.lists(
    st.tuples(
        st.sampled_from(["capture", "decomposition", "forget"]),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ),
    max_size=30,
)


@given(steps)
def test_it_says_what_a_listing_would_say(steps):
    dependants, standing = Dependants(), {}
    for generation, (what, name, other) in enumerate(steps, start=1):
        if what == "forget":
            key = Key("Decomposition", "default", name)
            standing.pop(key, None)
            dependants.forget(key)
            continue
        make = capture if what == "capture" else decomposition
        made = make(name, other, generation)
        standing[made.key] = made
        dependants.learn(made)
    for name in NAMES:
        key = Key("Capture", "default", name)
        naming = {one.key for one in standing.values() if key in object_references(one)}
        assert dependants.naming(key) == naming
    used = {r.digest for one in standing.values() for r in input_references(one)}
    assert {reference.digest for reference in dependants.inputs()} == used
