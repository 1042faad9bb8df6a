"""What is changed, and what is left alone."""

import ast

import pytest

from tests.mutation.operators import mutants_of


def changes(text):
    """Return what each mutant of a text reads as, by operator."""
    source = text.encode()
    found = mutants_of("toy.py", source)
    return {(m.operator, m.before, m.after) for m in found if ast.parse(m.applied(source))}


@pytest.mark.parametrize(
    ("text", "operator", "before", "after"),
    [
        ("if ready:\n    x", "negate", "ready", "not (ready)"),
        ("if not ready:\n    x", "negate", "not ready", "(ready)"),
        ("y = a == b", "negate", "a == b", "a != b"),
        ("y = a in b", "negate", "a in b", "a not in b"),
        ("y = a < b", "negate", "a < b", "a >= b"),
        ("y = a < b", "widen", "a < b", "a <= b"),
        ("y = a < b <= c", "widen", "a < b <= c", "a < b < c"),
        ("y = a and b", "negate", "a and b", "(a) or (b)"),
        ("y = a and b", "negate", "b", "not (b)"),
        ("y = [x for x in z if x.ok]", "negate", "x.ok", "not (x.ok)"),
        ("save(it)", "drop", "save(it)", "pass"),
        ("y = sorted(names)", "drop", "sorted(names)", "(names)"),
        ("y = sorted(names)", "swap", "sorted(names)", "sorted(names, reverse=True)"),
        ("y = sorted(n for n in names)", "swap", "sorted(n for n in names)",
         "sorted((n for n in names), reverse=True)"),
        ("y = min(names)", "swap", "min", "max"),
        ("y = a - b * c", "swap", "a - b * c", "(b * c) - (a)"),
        ("y = f(a, b)", "swap", "a, b", "b, a"),
        ("def f():\n    seal(x)\n    publish(x)", "swap", "seal(x)\n    publish(x)",
         "publish(x)\n    seal(x)"),
        ("y = 3", "constant", "3", "4"),
        ("y = 0.5", "constant", "0.5", "1.0"),
        ("y = True", "constant", "True", "False"),
        ("y = 'Ready'", "constant", "'Ready'", "'XXReady'"),
    ],
)  # fmt: skip
def test_a_small_change_is_made(text, operator, before, after):
    assert (operator, before, after) in changes(text)


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""',
        "y: Literal[3]",
        "def f(x: Annotated[int, 3]) -> Annotated[int, 4]: ...",
        "log.info('started', job=3)",
        "y = 'a sentence for people'",
        "y = f'{x:>3}'",
        "if TYPE_CHECKING:\n    y = 3",
        "assert y == 3",
        "y = zip(a, *b, strict=True)",
        "@dataclass(frozen=True)\nclass C: ...",
        "y = f(*a, b)",
        "y = f(a, b.c)",
    ],
)
def test_what_no_test_should_hold_is_left_alone(text):
    assert changes(text) == set()


def test_a_mutant_changes_its_own_bytes_also_behind_letters_of_several_bytes():
    source = 'x = "—"; y = a < b  # ≤\n'.encode()
    widened = [m for m in mutants_of("toy.py", source) if m.operator == "widen"]
    assert [m.applied(source).decode() for m in widened] == ['x = "—"; y = a <= b  # ≤\n']


def test_a_name_stays_while_other_lines_come_and_go_and_no_two_are_the_same():
    source = b"def f(a):\n    return a + 1 + 1\n"
    keys = [mutant.key for mutant in mutants_of("toy.py", source)]
    moved = [mutant.key for mutant in mutants_of("toy.py", b"import os\n\n" + source)]
    assert keys == moved
    assert keys == ["toy.py f: constant: 1 → 2", "toy.py f: constant: 1 → 2 (2)"]


def test_a_change_knows_the_lines_that_must_run_to_meet_it():
    source = b"def f(a):\n    if a:\n        return g(\n            1,\n        )\n    return 2\n"
    places = {m.before: sorted(m.place.lines) for m in mutants_of("toy.py", source)}
    assert places == {"a": [2], "1": [3, 4, 5], "2": [6]}


def test_a_default_is_met_wherever_its_function_runs_and_a_constant_where_it_is_named():
    source = b"LIMIT = 3\ndef f(a=4):\n    return a\n"
    limit, default = mutants_of("toy.py", source)
    assert limit.place.names == {"LIMIT"}
    assert default.place.lines == {3}
