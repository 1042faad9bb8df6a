"""Living functions that take the code of a mutant."""

import importlib.util
import sys

import pytest

from tests.mutation.swapping import CannotSwapError, Living

TOY = """\
import functools

LIMIT = 3

def plain(number):
    return number + 1

@functools.cache
def remembered(number):
    return number + 2

class Box:
    size = 4

    @property
    def larger(self):
        return self.size + 5

def outer():
    def inner(number=7):
        return [each + 6 for each in (number,)]
    return inner

def last():
    return (
        1
    )
"""


@pytest.fixture
def toy(tmp_path):
    """Return the module, and a function that changes its text where it lives."""
    file = tmp_path / "toy.py"
    file.write_text(TOY)
    spec = importlib.util.spec_from_file_location("toy_of_swapping", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    living = Living([file])

    def change(before, after):
        assert before in TOY
        living.swap(file, TOY.encode(), TOY.replace(before, after).encode())
        return module

    yield change
    del sys.modules[spec.name]


def test_a_function_does_what_its_mutant_does_wherever_it_is_held(toy):
    assert toy("number + 1", "number + 10").plain(1) == 11
    assert toy("number + 2", "number + 20").remembered(1) == 21
    assert toy("self.size + 5", "self.size + 50").Box().larger == 54


@pytest.mark.parametrize(
    ("before", "after", "answer"), [("each + 6", "each + 60", 67), ("number=7", "number=70", 76)]
)
def test_a_function_inside_of_another_is_changed_with_it(toy, before, after, answer):
    assert toy(before, after).outer()() == [answer]


def test_functions_whose_lines_only_moved_keep_their_code(toy):
    module = toy("number + 1", "(\n    number + 10)")
    assert module.plain(1) == 11
    assert module.last.__code__.co_firstlineno == TOY[: TOY.index("def last")].count("\n") + 1


@pytest.mark.parametrize(
    ("before", "after"),
    [("LIMIT = 3", "LIMIT = 4"), ("size = 4", "size = 5"), ("plain(number)", "plain(number=2)")],
)
def test_only_what_is_inside_of_functions_can_be_changed(toy, before, after):
    with pytest.raises(CannotSwapError):
        toy(before, after)


def test_what_does_not_parse_is_refused(toy):
    with pytest.raises(SyntaxError):
        toy("number + 1", "number +")


def test_a_function_that_does_not_live_is_not_changed(tmp_path):
    with pytest.raises(CannotSwapError, match="no plain lives"):
        Living([]).swap(tmp_path / "toy.py", TOY.encode(), TOY.replace("+ 1", "+ 10").encode())
