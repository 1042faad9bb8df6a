"""The section of the page."""

from dataclasses import replace

import pytest

from tests.mutation.operators import mutants_of
from tests.mutation.recording import Trial
from tests.mutation.reporting import (
    BEGIN,
    END,
    Reason,
    read_reasons,
    replaced,
    section,
    wilson,
)
from tests.mutation.scope import ROOMS, ROOT, WHOLE, files_of

MUTANTS = mutants_of("toy.py", b"a = 1\nb = 2\nc = x | y < 3\nd = 4\n")


def trial(mutant, outcome, by=None, **more):
    given = {"tests": 2, "left_out": 0, "seconds": 1.0, "commit": "abc", "date": "2026-01-01"}
    return Trial(mutant.key, mutant.line, "v1", outcome, by, **{**given, **more})


def trials(**outcomes):
    by_name = {next(iter(mutant.place.names)): mutant for mutant in MUTANTS}
    return {by_name[name].key: trial(by_name[name], outcome) for name, outcome in outcomes.items()}


def test_the_interval_is_that_of_the_textbook():
    # Newcombe 1998, table I: 81 of 263, 0.2553 to 0.3662; 0 of 20, 0 to 0.1611
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_score_leaves_out_what_is_equivalent_and_what_is_not_viable():
    known = trials(a="killed", b="survived", d="unviable")
    reasons = {"toy.py <module>: constant: 2 → 3": Reason(True, "nothing reads b")}
    text = section({"toys": MUTANTS}, known, reasons)
    low, high = wilson(1, 1)
    assert (
        f"| toys | 2 of {len(MUTANTS) - 1} | 1 | 1 | 0 | 100.0% ({low:.1%} to {high:.1%}) |" in text
    )
    assert "| toy.py <module>: `` constant: 2 → 3 `` | equivalent: nothing reads b |" in text


def test_every_survivor_is_listed_with_its_reason_or_with_the_lack_of_one():
    text = section({"toys": MUTANTS}, trials(a="survived", b="uncovered"), {})
    assert "constant: 1 → 2 `` | not looked at yet: 2 tests that run the line pass |" in text
    assert "constant: 2 → 3 `` | no fast test runs this line in its own process |" in text


def test_survivors_that_have_not_met_all_their_tests_are_counted():
    known = trials(a="survived", b="killed", d="uncovered")
    cut = {key: replace(t, left_out=int(t.outcome != "uncovered")) for key, t in known.items()}
    assert "; 0 that live were not tried against all tests" in section({"t": MUTANTS}, known, {})
    text = section({"t": MUTANTS}, cut, {})
    assert "; 1 that live were not tried against all tests" in text
    assert "not looked at yet: 2 tests that run the line pass; 1 slower ones were not run" in text


def test_a_bar_in_a_mutant_ends_no_cell():
    barred = {m.key: trial(m, "survived") for m in MUTANTS if "|" in m.key}
    text = section({"toys": MUTANTS}, barred, {})
    assert "x \\| y" in text
    assert "x | y" not in text


def test_a_mutant_of_two_groups_is_tried_once_and_counted_in_both():
    text = section({"toys": MUTANTS, "again": MUTANTS}, trials(a="killed"), {})
    assert "1 mutants tried" in text
    assert text.count(f"1 of {len(MUTANTS)} | 1 | 0 | 0 |") == 2


def test_a_section_takes_the_place_of_the_one_before():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, f"{BEGIN}\nnew\n{END}") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="no section"):
        replaced("a page without", "new")


def test_a_reason_is_a_sentence(tmp_path):
    path = tmp_path / "survivors.toml"
    path.write_text('[[survivor]]\nmutants = ["x"]\nreason = " "\n')
    with pytest.raises(ValueError, match="x has no reason"):
        read_reasons(path)


def test_every_mutant_with_a_reason_is_one_of_the_code_as_it_is():
    reasons = read_reasons(ROOT / "tests" / "mutation" / "survivors.toml")
    paths = {key.partition(" ")[0] for key in reasons}
    there = {m.key for path in paths for m in mutants_of(path, (ROOT / path).read_bytes())}
    assert sorted(set(reasons) - there) == []


def test_what_is_taken_whole_is_part_of_the_rooms():
    rooms = {path for patterns in ROOMS.values() for path in files_of(patterns)}
    assert set(WHOLE) <= rooms
    named = {pattern for patterns in ROOMS.values() for pattern in patterns if "*" not in pattern}
    assert named <= rooms
