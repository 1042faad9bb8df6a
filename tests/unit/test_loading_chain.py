"""A list of dictionaries is stored as a sweep over its neighbouring pairs."""

import json

import pytest

from loopscope.specs import sweep
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.files import RootedFiles
from loopscope.specs.yaml.loading import load_text
from tests.tiny_experiment import make_experiment


@pytest.fixture
def load(tmp_path):
    """Load the tiny experiment with other fields."""

    def loaded(**changes):
        path = make_experiment(tmp_path, **json.loads(json.dumps(changes)))  # an alias is refused
        text = path.read_text()
        (found,) = load_text(text, path.name, RootedFiles(path.parent, tmp_path))
        return found.manifest.spec.canonical()

    return loaded


def paths(cell):
    sides = cell.spec["dictionaries"]
    return [
        (sides[side]["path"].rsplit("/", 1)[-1], sides[side].get("prefix"))
        for side in ("coarse", "fine")
    ]


CHAIN = [{"path": "../coarse"}, {"path": "../fine", "prefix": 64}, {"path": "../fine"}]


def test_neighbours_are_the_cells_and_each_fine_one_is_the_next_coarse_one(load):
    cells = sweep.cells(load(dictionaries=CHAIN))
    assert [cell.suffix for cell in cells] == ["1-2", "2-3"]
    assert [paths(cell) for cell in cells] == [
        [("coarse", None), ("fine", 64)], [("fine", 64), ("fine", None)],
    ]  # fmt: skip


def test_a_list_is_stored_as_the_axis_that_it_stands_for(load):
    first = {"coarse": {"path": "../coarse"}, "fine": {"path": "../fine", "prefix": 64}}
    second = {"coarse": {"path": "../fine", "prefix": 64}, "fine": {"path": "../fine"}}
    pairs = {"1-2": {"dictionaries": dict(first)}, "2-3": {"dictionaries": second}}
    written = json.loads(json.dumps({"dictionaries": first, "matrix": {"pair": pairs}}))
    assert load(dictionaries=CHAIN) == load(**written)


def test_another_axis_multiplies_the_pairs(load):
    seeds = {"one": {"steering.sampling.seed": 1}, "two": {"steering.sampling.seed": 2}}
    cells = sweep.cells(load(dictionaries=CHAIN, matrix={"seed": seeds}))
    assert {cell.suffix for cell in cells} == {"1-2-one", "1-2-two", "2-3-one", "2-3-two"}


def test_two_dictionaries_are_no_sweep(load):
    found = load(dictionaries=CHAIN[::2])
    assert "matrix" not in found
    assert found == load(dictionaries={"coarse": CHAIN[0], "fine": CHAIN[2]})


def refused(load, **changes):
    with pytest.raises(InvalidSpec) as refusal:
        load(**changes)
    return refusal.value.problems


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_wrong_dictionary_is_named_where_it_stands_in_the_list(load, tmp_path, place):
    chain = [dict(one) for one in CHAIN]
    chain[place] = {"path": "../nothing", "prefix": 0}
    problems = refused(load, dictionaries=chain)
    lines = (tmp_path / "specs" / "tiny.yaml").read_text().splitlines()
    own = f"spec.dictionaries.{place}"
    assert [one.field for one in problems] == [f"{own}.path", f"{own}.prefix"]
    assert [lines[one.line - 1].strip(" -") for one in problems] == [
        "path: ../nothing",
        "prefix: 0",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dictionaries": CHAIN[:1]}, "expected a mapping"),
        ({"dictionaries": []}, "expected a mapping"),
        ({"dictionaries": CHAIN, "matrix": {"pair": {"a": {"hook": "x"}}}}, "expected a mapping"),
        ({"dictionaries": CHAIN, "matrix": {"other": {"a": {"dictionaries.fine": CHAIN[2]}}}},
         "a field belongs to one axis"),
    ],
)  # fmt: skip
def test_a_list_that_is_no_chain_is_refused_once_and_in_place(load, changes, words):
    problems = refused(load, **changes)
    assert any(words in one.message for one in problems), problems
    assert all(one.line > 0 for one in problems)
