"""A toy module, its toy tests, and what becomes of its mutants."""

import itertools
import os
import signal
import threading
from dataclasses import replace

import pytest

from tests.mutation import covering, forks
from tests.mutation.covering import Traced
from tests.mutation.forks import Children, Limits
from tests.mutation.operators import mutants_of
from tests.mutation.recording import Record, Trial
from tests.mutation.rounds import Round
from tests.mutation.trials import Sources, Trials, _handfuls

TOY = """\
LIMIT = 3

def clamped(number):
    return number if number < LIMIT else LIMIT

def counted(number):
    steps = 0
    while steps != number:
        steps = steps + 1
    return steps

def unused():
    return 7
"""
TESTS = """\
from toy import clamped, counted

def test_small_numbers_stay():
    assert clamped(2) == 2

def test_large_numbers_are_cut():
    assert clamped(5) == 3

def test_all_are_counted():
    assert counted(3) == 3
"""
FAILS_LATER = """
def test_once():
    from pathlib import Path
    assert clamped(1) == 1
    Path({kept!r}).touch(exist_ok=False)
"""


@pytest.fixture(params=["warm", "cold"])
def tried(request, tmp_path, monkeypatch):
    """Return a function that tries the mutants of the toy whose name holds a text."""
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = integration\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(covering, "TESTS", ("test_*.py",))
    monkeypatch.setattr(covering, "ROOMS", {"toy": ("toy.py",)})
    sources = Sources(tmp_path, package="")
    scratch, kept = tmp_path / "scratch", tmp_path / "map"

    def run(text, seconds_max=1e9):
        list(covering.measure(tmp_path, kept, Children(scratch), processes=2))
        said = []
        record = Record(tmp_path / "record.jsonl")
        tests = covering.load(tmp_path, kept)
        one = Round(
            *(sources, ["toy.py"], tests, record, "c0ffee", 2, seconds_max),
            *(scratch, ["test_toy.py"], said.append),
        )
        mutants = [m for m in mutants_of("toy.py", sources.of("toy.py")) if text in m.key]
        assert one.try_all(mutants, warm=request.param == "warm") == set(), said
        return {key.split(": ", 1)[1]: trial for (key, _), trial in record.trials().items()}

    return run


def test_a_mutant_is_killed_by_a_test_of_its_line_or_survives(tried):
    trials = tried("clamped")
    negated = trials["negate: number < LIMIT → number >= LIMIT"]
    assert negated.outcome == "killed"
    assert negated.by.startswith("test_toy.py::")
    widened = trials["widen: number < LIMIT → number <= LIMIT"]  # at the limit both are the limit
    assert (widened.outcome, widened.by, widened.tests) == ("survived", None, 2)


def test_a_constant_of_the_module_is_tried_where_it_is_named(tried):
    trial = tried("<module>")["constant: 3 → 4"]
    assert trial.by == "test_toy.py::test_large_numbers_are_cut"


def test_a_mutant_that_does_not_come_to_an_end_is_killed_by_its_time(tried, monkeypatch):
    monkeypatch.setattr("tests.mutation.rounds.COLD_SECONDS_MIN", 1.0)
    monkeypatch.setattr("tests.mutation.rounds.WARM_SECONDS_MIN", 1.0)
    assert tried("counted")["constant: 1 → 2"].outcome == "timeout"


def test_a_mutant_that_no_test_runs_is_uncovered(tried):
    assert tried("unused")["constant: 7 → 8"].outcome == "uncovered"


def test_a_mutant_that_cannot_be_imported_is_not_viable(tried, tmp_path):
    toy = tmp_path / "toy.py"
    toy.write_text(TOY + "\n\nassert LIMIT == 3\n")
    assert tried("<module>")["constant: 3 → 4"].outcome == "unviable"


def test_what_killed_another_mutant_of_the_file_runs_first():
    tests = [Traced(name, 1.0, {}) for name in ("a", "b", "c", "d")]
    toy = [m for m in mutants_of("toy.py", TOY.encode()) if "clamped: widen" in m.key]
    killed = {"outcome": "killed", "line": 1, "source": "", "tests": 1, "left_out": 0}
    earlier = [
        Trial(key=f"{place}: drop: x → y", by=by, seconds=1.0, **killed)
        for place, by in [
            ("toy.py counted", "d"), ("toy.py clamped", "c"), ("other.py clamped", "b"),
        ]
    ]  # fmt: skip
    trials = Trials(None, None, 1, None, 1.0, earlier)
    assert [test.name for test in trials._likely_first(toy[0], tests)] == ["c", "d", "a", "b"]


def test_the_first_tests_are_those_of_a_few_files():
    tests = [Traced(f"{file}.py::test", 1.0, {}) for file in "aabcdefghij"]
    handfuls = _handfuls([replace(test, seconds=0.5) for test in tests])
    assert [[test.name[0] for test in each] for each in handfuls] == [list("aabcd"), list("efghij")]
    assert [len(each) for each in _handfuls(tests)] == [3, 3, 5]
    assert _handfuls([]) == []


def test_a_test_that_fails_without_the_mutant_as_well_kills_nothing(tried, tmp_path):
    kept = tmp_path / "only-once"
    (tmp_path / "test_toy.py").write_text(TESTS + FAILS_LATER.format(kept=str(kept)))
    trials = tried("clamped: widen")
    assert trials["widen: number < LIMIT → number <= LIMIT"].outcome == "survived"


def test_slow_tests_are_left_out_beyond_a_limit_and_counted(tried):
    trial = tried("clamped: widen", seconds_max=-1.0)["widen: number < LIMIT → number <= LIMIT"]
    assert (trial.outcome, trial.tests, trial.left_out) == ("survived", 1, 1)


def test_no_file_is_touched_and_nothing_stays_behind(tried, tmp_path):
    tried("clamped")
    assert (tmp_path / "toy.py").read_text() == TOY
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_child_that_only_sleeps_is_ended(tmp_path):
    children = Children(tmp_path)
    sleep = threading.Event().wait  # for ever: nobody sets it
    children.start("sleeper", lambda folder: sleep(), Limits(60, asleep_seconds=0.5))
    assert children.next_ended().ending == "too long"


def test_a_child_that_sleeps_and_wakes_for_moments_is_ended(tmp_path, monkeypatch):
    looks = itertools.cycle([True] * 9 + [False])
    monkeypatch.setattr(forks, "_asleep", lambda pid: next(looks))
    monkeypatch.setattr(forks, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(forks, "AWAKE", 0.05)
    children = Children(tmp_path)
    sleep = threading.Event().wait
    children.start("sleeper", lambda folder: sleep(), Limits(60, asleep_seconds=0.2))
    assert children.next_ended().ending == "too long"


@pytest.mark.parametrize(
    ("work", "ending"),
    [
        (lambda folder: folder.name, "answered"),
        (lambda folder: os.kill(os.getpid(), signal.SIGKILL), "died"),
        (lambda folder: 1 / 0, "failed"),
    ],
)
def test_a_child_that_was_killed_is_told_from_one_that_failed(tmp_path, work, ending):
    children = Children(tmp_path)
    children.start("one", work, Limits(60))
    assert children.next_ended().ending == ending


def test_tests_are_traced_once_until_they_or_what_they_run_change(tried, tmp_path):
    tried("clamped")
    kept = tmp_path / "map"
    before = sorted(kept.iterdir())
    tried("clamped")
    assert sorted(kept.iterdir()) == before
    (tmp_path / "test_toy.py").write_text(TESTS + "\n")
    tried("clamped")
    assert len(sorted(kept.iterdir())) == 2


def test_a_record_says_what_was_tried_of_which_version_also_after_a_crash_in_a_line(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    first = Trial("toy.py f: drop: x() → pass", 3, "aaa", "survived", None, 4, 0, 1.5)
    record.add(first)
    with record.path.open("a") as file:
        file.write('{"key": "toy.py')
    killed = replace(first, outcome="killed", by="test_toy.py::test_x")
    other = replace(first, source="bbb")
    record.add(killed)
    record.add(other)
    assert record.trials() == {(first.key, "aaa"): killed, (first.key, "bbb"): other}
