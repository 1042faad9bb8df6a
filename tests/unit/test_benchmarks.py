"""The arithmetic of the benchmarks; what they measure is not tested."""

from pathlib import Path

import numpy as np
import pytest

from loopscope.context import root_of
from loopscope.controller.plan.applying import load_admitted
from loopscope.numerics.statistics.power import split_variance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_time_that_two_jobs_share_is_counted_once():
    from control_share import Share, covered

    assert covered([]) == 0.0
    assert covered([(5.0, 6.0), (0.0, 4.0), (1.0, 2.0), (3.0, 4.5)]) == 5.5
    share = Share(wall=10.0, working=9.5, stages=9.0)
    assert share.control == pytest.approx(0.05) and share.starting == pytest.approx(0.05)


def test_the_largest_design_fills_the_time_and_not_more():
    from demo_size import Costs

    costs = Costs(fixed=40.0, text=0.5, arms=4)
    assert costs.openings(1, 100.0) == 20  # 60 s, 3 s an opening of one sample
    assert costs.openings(2, 100.0) == 12
    assert costs.openings(1, 30.0) == 0


def test_only_openings_vary_where_the_pilot_has_one_sample_of_each():
    from demo_size import Costs, fitting

    generator = np.random.default_rng(0)
    once = split_variance(generator.normal(size=(2, 30, 1)))
    often = split_variance(generator.normal(size=(2, 30, 4)))
    costs = Costs(fixed=0.0, text=1.0, arms=1)
    assert [each.samples for each in fitting(once, costs, 0.5, seconds=90.0)] == [1]
    designs = list(fitting(often, costs, 0.5, seconds=90.0))
    assert [each.samples for each in designs] == [1, 2, 3, 4, 6, 8, 10]
    assert all(each.openings * (each.samples + 0.5) <= 90.0 for each in designs)


def test_only_what_stands_between_the_marks_is_written_anew():
    from bench import MARKS, PAGE, written

    page = PAGE.read_text()
    once = written(page, ["| a | b |"])
    assert written(once, ["| a | b |"]) == once
    before, after = page.split(MARKS[0])[0], page.split(MARKS[1])[1]
    assert once == f"{before}{MARKS[0]}\n| a | b |\n{MARKS[1]}{after}"
    with pytest.raises(ValueError, match="lacks the marks"):
        written("# A page", [])


def test_what_was_measured_is_not_measured_again(tmp_path):
    from bench import measured

    record = tmp_path / "bench.json"
    assert measured(record, {"one": lambda: {"seconds": 1.0}}) == {"one": {"seconds": 1.0}}
    todo = {"one": lambda: {"seconds": 9.0}, "two": lambda: {"ratio": 2.5}}
    expected = {"one": {"seconds": 1.0}, "two": {"ratio": 2.5}}
    assert measured(record, todo) == measured(record, {}) == expected


def test_a_row_of_the_table_stands_for_each_number():
    from bench import table

    found = {
        "france": {"seconds": 100.0, "first line": 1.25, "peak GiB": 2.0},
        "control": {"control plane percent": 0.7},
        "notebook": {"wall": {"load": 50.0, "generate": 250.0}, "peak GiB": 4.0,
                     "differences": {"residual": 1e-6, "cosine": 2e-6}},
        "decoding": {"ratio": 2.5},
        "roofline": {"percent": {"output head, 80 rows": 62.0}},
    }  # fmt: skip
    rows = "\n".join(table(found))
    for row in ("| notebook against the run | 3.00 times |", "run's | 2.00 times |", "| 2e-06 |",
                "| output head, 80 rows, of its floor | 62 % |"):  # fmt: skip
        assert row in rows


def test_france_is_kept_with_every_arm_of_then_and_no_prompt_held_out():
    file = BENCHMARKS / "france.yaml"
    (item,) = load_admitted(file, root_of(file, None))
    spec = item.manifest.canonical_spec()
    assert spec["splits"]["discover"] == 1.0 and spec["splits"]["test"] == 0.0
    assert len(spec["steering"]["arms"]) == 9
    assert spec["steering"]["samplesPerPrompt"] == 1 and spec["steering"]["randomDraws"] == 2
    assert len(spec["prompts"]["target"]["texts"]) == 200
