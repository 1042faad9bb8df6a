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
    before, after = page.split(MARKS[0])[0], page.split(MARKS[1], 1)[1]
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
        "france": {"seconds": 100.0, "processor": 150.0, "first line": 1.25, "peak GiB": 2.0},
        "then": {"seconds": 250.0, "processor": 300.0, "first line": 2.0, "peak GiB": 2.5},
        "control": {"control plane percent": 0.7},
        "notebook": {"wall": {"load": 50.0, "generate": 250.0}, "peak GiB": 4.0,
                     "processor": {"load": 60.0, "generate": 300.0},
                     "differences": {"residual": 1e-6, "cosine": 2e-6}},
        "decoding": {"ratio": 2.5},
        "roofline": {"percent": {"output head, 80 rows": 62.0}},
        "wide": {"stages": {
            "geometry": {"seconds": 20.4, "percent": 81.0, "anonymous MiB": 512},
            "mapping second": {"seconds": 3.21, "anonymous MiB": 256},
        }},
    }  # fmt: skip
    rows = "\n".join(table(found))
    for row in ("| it against commit 620b04e | 0.40 times | 0.5 |",
                "| it against commit 620b04e, processor time | 0.50 times |",
                "| notebook against the run, processor time | 2.40 times |",
                "| notebook against the run | 3.00 times |", "run's | 2.00 times |", "| 2e-06 |",
                "| output head, 80 rows, of its floor | 62 % | 80 % |", "3.2 s | 5 s |",
                "20 s, 81 % of a product's rate | 80 % |", "| 0.50 GiB | 1.5 GB |"):  # fmt: skip
        assert row in rows


def test_the_rows_of_steps_that_were_measured_stand_while_others_are_missing(tmp_path):
    from bench import measured, table

    seen = []
    todo = {"decoding": lambda: {"ratio": 2.5}, "france": lambda: {"seconds": 9.0, "first line": 1}}
    measured(tmp_path / "bench.json", todo, lambda found: seen.append(len(table(found)) - 2))
    assert seen == [1, 3]
    assert table({}) == ["| | measured | goal |", "|---|---|---|"]


def test_france_is_kept_with_every_arm_of_then_and_no_prompt_held_out():
    file = BENCHMARKS / "france.yaml"
    (item,) = load_admitted(file, root_of(file, None))
    spec = item.manifest.canonical_spec()
    assert spec["splits"]["discover"] == 1.0 and spec["splits"]["test"] == 0.0
    assert len(spec["steering"]["arms"]) == 9
    assert spec["steering"]["samplesPerPrompt"] == 1 and spec["steering"]["randomDraws"] == 2
    assert len(spec["prompts"]["target"]["texts"]) == 200


def test_a_spec_with_fewer_openings_is_the_same_but_for_these(tmp_path):
    import yaml
    from then import SPEC, cut

    whole, few = (
        yaml.safe_load(cut(SPEC, tmp_path / "build/france.yaml", openings).read_text())
        for openings in (0, 3)
    )
    texts = whole["spec"]["steering"].pop("prompts")["texts"]
    assert len(texts) == 20 and few["spec"]["steering"].pop("prompts")["texts"] == texts[:3]
    given = yaml.safe_load(SPEC.read_text())
    del given["spec"]["steering"]["prompts"]
    assert whole == few == given


def test_the_capture_of_an_experiment_is_a_spec_of_its_own(tmp_path):
    import yaml
    from then import SPEC, capture_of

    document = yaml.safe_load(SPEC.read_text())
    spec = document["spec"]
    spec["prompts"] = {"target": {"texts": ["Paris is"]}, "neutral": {"texts": ["Rome is"]}}
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(yaml.safe_dump(document))
    (item,) = load_admitted(capture_of(experiment, tmp_path / "capture.yaml"), tmp_path)
    assert item.manifest.kind == "Capture"
    assert item.manifest.canonical_spec()["model"]["name"] == spec["model"]["name"]


def test_medians_of_nested_numbers_are_taken_one_by_one():
    from bench_full import medians, repeats_of

    runs = [{"a": 1.0, "b": {"c": 5.0}}, {"a": 9.0, "b": {"c": 3.0}}, {"a": 2.0, "b": {"c": 4.0}}]
    assert medians(runs) == {"a": 2.0, "b": {"c": 4.0}}
    record = {f"x {number}": run for number, run in enumerate(runs)}
    assert repeats_of(record, "x") == runs and repeats_of({"x 1": runs[0]}, "x") == runs[:1]


def test_sizes_of_a_growth_that_were_not_measured_are_named_as_not_run(tmp_path, monkeypatch):
    import bench_full

    monkeypatch.setattr(bench_full, "IMAGES", tmp_path)
    assert bench_full.growth_lines({}, tmp_path) == []
    record = {
        f"experiments {size} {number}": {"all": 2.0 * size + number, "each": 2.0}
        for size, repeats in ((1, 1), (10, 3), (100, 3))
        for number in range(repeats)
    }
    lines = bench_full.growth_lines(record, tmp_path)
    assert "| 1 | 2.00 | 2.00 | 1 |" in lines and "| 10 | 21.00 | 2.00 | 3 |" in lines
    assert "| 1,000 | not run | not run | 0 |" in lines
    picture = (tmp_path / "growth-experiments.svg").read_text()
    assert picture.count("<polyline") == 2 and picture.count("<circle") == 6


def test_every_measurement_of_a_growth_is_planned_three_times(tmp_path):
    from bench_full import growths, plan

    only = plan(tmp_path, "prompts")
    assert list(only)[:2] == ["prompts 100 0", "prompts 1000 0"] and len(only) == 9
    sizes = sum(len(growth.sizes) for growth in growths(tmp_path))
    assert len(plan(tmp_path, None)) == 3 * (sizes + 7)
    assert list(plan(tmp_path, "latents", 4_096, 1)) == ["latents 1024 0", "latents 4096 0"]


def test_a_line_of_a_picture_lies_where_its_numbers_are_on_logarithmic_axes():
    import re

    from growth_picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, drawn

    picture = drawn({"a < b": [(10.0, 1.0), (100.0, 10.0), (1_000.0, 100.0)]}, "n", "s")
    (points,) = re.findall(r'<polyline points="([^"]*)"', picture)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    assert (x0, x2, y0, y2) == (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, TOP)
    assert x1 == (x0 + x2) / 2 and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert "a &lt; b" in picture
