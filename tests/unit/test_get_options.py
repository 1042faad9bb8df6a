"""``get`` and ``describe`` as kubectl users type them: which objects, in which order and form."""

import json
import time

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from tests.simulated import capture_spec, experiment_spec


@pytest.fixture
def world(settled):
    """Two settled experiments, the second in the namespace ``team``."""
    settled.apply(experiment_spec(), "paris")
    settled.settle()
    with settled.state.database.write() as connection:
        key = Key("Experiment", "team", "rome")
        objects.apply(connection, key, experiment_spec(), now=settled.clock.now())
    settled.settle()
    return settled


def names(said):
    return said.split()


# -- which ---------------------------------------------------------------------------------


def test_all_is_every_kind_and_each_has_its_table(loopscope, world):
    code, said, _ = loopscope("get", "all")
    tables = said.split("\n\n")
    assert code == 0 and len(tables) == 5
    assert tables[0].splitlines()[1].startswith("experiment/france ")
    assert "steering/paris-steering" in tables[4]


def test_kinds_with_a_comma_and_several_names(loopscope, world):
    kinds = loopscope("get", "exp,map", "-o", "name")[1]
    assert names(kinds) == [
        "experiment/france", "experiment/paris", "mapping/france-mapping", "mapping/paris-mapping",
    ]  # fmt: skip
    assert names(loopscope("get", "exp", "paris", "france", "-o", "name")[1]) == [
        "experiment/paris", "experiment/france",
    ]  # fmt: skip
    mixed = loopscope("get", "exp/paris", "capture/france", "exp/paris", "-o", "name")[1]
    assert names(mixed) == ["experiment/paris", "capture/france-capture"]


def test_what_is_there_is_printed_beside_names_that_are_not(loopscope, world):
    code, out, err = loopscope("get", "exp", "nope", "paris", "nada", "-o", "name")
    assert (code, out) == (1, "experiment/paris\n")
    assert [line[:31] for line in err.splitlines()] == [
        "error: no experiment named 'nop", "error: no experiment named 'nad",
    ]  # fmt: skip
    assert loopscope("get", "exp", "nope", "nada")[:2] == (1, "")


def test_one_named_object_is_a_document_and_several_are_a_list(loopscope, world):
    assert json.loads(loopscope("get", "exp", "paris", "-o", "json")[1])["kind"] == "Experiment"
    several = json.loads(loopscope("get", "exp", "paris", "france", "-o", "json")[1])
    assert several["kind"] == "List" and len(several["items"]) == 2


def test_every_namespace_is_listed_with_its_name(loopscope, world):
    said = loopscope("get", "exp", "-A")[1]
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["NAMESPACE", "NAME"], ["default", "france"], ["default", "paris"], ["team", "rome"],
    ]  # fmt: skip


def test_fields_choose_objects(loopscope, world):
    chosen = loopscope("get", "exp", "--field-selector", "metadata.name!=paris", "-o", "name")[1]
    assert names(chosen) == ["experiment/france"]
    none = loopscope("get", "map", "--field-selector=status.summary.verdict=nothing")[1]
    assert none == "No mappings found in namespace default.\n"


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["exp", "-A", "-n", "team"], 2, "not both"),
        (["exp", "france", "-A"], 2, "leave out --all-namespaces"),
        (["exp/france", "paris"], 2, "not both"),
        (["exp,nothing"], 2, "unknown kind 'nothing'"),
        (["exp", "--field-selector", "metdata.name=x"], 2, "a path begins with one of"),
        (["exp", "--field-selector", "status.ready=True"], 2, "below status stand observedGener"),
        (["exp", "--field-selector", "metadata.nmae=x"], 2, "below metadata stand name,"),
        (["exp", "--field-selector", "metadata.name"], 2, "no field selector"),
        (["exp", "--sort-by", ".a["], 2, "--sort-by"),
        (["exp", "--sort-by", ".status.nothing"], 1, "no experiment has the field .status.nothing"),
        (["exp", "-o", "custom-columns=NAME"], 2, "expected NAME:PATH"),
        (["exp", "-o", "custom-columns=A:.a,A:.b"], 2, "each name once"),
        (["exp", "-o", "json", "--show-labels"], 2, "need a table"),
        (["exp,map", "-w"], 2, "is watched for one kind"),
        (["exp", "london"], 1, "no experiment named 'london'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(loopscope, world, words, code, what):
    said = loopscope("get", *words)
    assert said[:2] == (code, "") and what in said[2]


# -- order and form ------------------------------------------------------------------------


def test_objects_are_sorted_by_a_field_and_those_without_it_come_last(loopscope, world):
    world.apply(capture_spec(), "aaa", "Capture")
    words = ("get", "cap", "--sort-by", "{.status.summary.prompts}", "-o", "name")
    assert names(loopscope(*words)[1])[-1] == "capture/aaa"
    world.apply({**experiment_spec(), "maxTokens": 9}, "zzz")
    by_number = loopscope("get", "exp", "--sort-by=.spec.maxTokens", "-o", "name")[1]
    assert names(by_number)[0] == "experiment/zzz"


def test_labels_are_shown_all_in_one_column_or_some_in_their_own(loopscope, world):
    all_of_them = loopscope("get", "cap", "france", "--show-labels")[1].splitlines()
    assert all_of_them[0].split()[-1] == "LABELS"
    assert all_of_them[1].endswith("loopscope.dev/experiment=france")
    own = loopscope("get", "cap", "-L", "loopscope.dev/experiment,none", "--no-headers")[1]
    assert own.splitlines()[0].split()[-2:] == ["france", "<none>"]


def test_columns_of_ones_own(loopscope, world):
    columns = "custom-columns=NAME:.metadata.name,KIND:{.kind},MISSING:.status.nothing[0]"
    said = loopscope("get", "exp", "-o", columns)[1]
    assert [line.split() for line in said.splitlines()] == [
        ["NAME", "KIND", "MISSING"],
        ["france", "Experiment", "<none>"],
        ["paris", "Experiment", "<none>"],
    ]
    bare = loopscope("get", "exp", "france", "-o", columns, "--no-headers")[1]
    assert bare.split() == ["france", "Experiment", "<none>"]


def test_describe_of_a_kind_describes_each_of_its_objects(loopscope, world):
    every = loopscope("describe", "mappings")[1]
    assert every.count("Conditions") == 2 and "france-mapping" in every and "paris-mapping" in every
    one = loopscope("describe", "map", "-l", "loopscope.dev/experiment=paris")[1]
    assert "france-mapping" not in one
    assert one == loopscope("describe", "mapping/paris-mapping")[1]
    none = loopscope("describe", "map", "-l", "a=b")
    assert none == (0, "No mappings found in namespace default.\n", "")


# -- watching ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [[], ["-o", "name"]], ids=["table", "name"])
def test_watch_only_prints_what_changes_from_now_on(loopscope, world, monkeypatch, form):
    doings = [lambda: None, lambda: world.apply(capture_spec(), "new", "Capture")]

    def sleep(_seconds):
        if not doings:
            raise KeyboardInterrupt
        doings.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)
    code, said, _ = loopscope("get", "cap", "--watch-only", "--no-headers", *form)
    assert code == 130 and len(said.splitlines()) == 1 and "new" in said
    with world.state.database.read() as connection:
        assert len(objects.listed(connection, "Capture")) == 4
