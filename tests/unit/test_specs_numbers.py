"""A number is read as people read it, or refused with what to write."""

import pytest

from loopscope.specs.errors import InvalidSpec
from loopscope.specs.yaml.nodes import read_documents


def read(written):
    (document,) = read_documents(f"a: {written}\n", "x.yaml")
    return document.value["a"]


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("010", "write 10,"),
        ("08", "write 8,"),
        ("-007", "write -7,"),
        ("0_17", "write 17,"),
        ("00.5", "write 0.5,"),
        ("0o10", "write 8,"),
        ("1:30", "write 90,"),
        ("-1:30:00", "write -5400,"),
        ("1:30.5", "write 90.5,"),
        ("!!int '010'", "write 10,"),
        ("!!int 1:30", "write 90,"),
    ],
)
def test_a_number_that_means_two_things_is_refused_with_what_to_write(written, advice):
    with pytest.raises(InvalidSpec) as refused:
        read(written)
    (problem,) = refused.value.problems
    assert (problem.line, problem.field) == (1, "a")
    assert advice in problem.message and "in quotes" in problem.message


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("3e-1", 0.3), ("1E5", 100_000.0), (".5e1", 5.0), ("1.5e+3", 1500.0), ("-2e0", -2.0),
        ("-.5", -0.5), ("+.25", 0.25),
        ("0", 0), ("-0.5", -0.5), ("0x1F", 31), ("1_000", 1000),
    ],
)  # fmt: skip
def test_a_number_that_means_one_thing_is_that_number(written, number):
    assert read(written) == number and isinstance(read(written), type(number))


@pytest.mark.parametrize("text", ["010", "1:30", "0o10", "3e-1", "-.5"])
def test_quotes_make_a_text_of_every_number(text):
    assert read(f"'{text}'") == read(f'"{text}"') == read(f"!!str {text}") == text


@pytest.mark.parametrize("text", ["010abc", "1:2:a", "2026-01-01", "e5", "1e", "1:99"])
def test_a_text_that_only_looks_a_little_like_a_number_stays_a_text(text):
    assert read(text) == text
