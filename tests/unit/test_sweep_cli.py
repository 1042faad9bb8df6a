"""A sweep at the front door: what is refused, listed and described."""

import pytest

from tests.unit.test_controller_sweep import settled_sweep

HOOKS = {f"l{n}": {"hook": f"blocks.{n}.hook_resid_post"} for n in (0, 1)}


@pytest.fixture
def swept(tmp_path):
    """A settled sweep s in the state folder of the commands."""
    return settled_sweep(tmp_path / "state")


def test_get_shows_how_many_cells_are_ready_and_the_best(swept, loopscope):
    code, out, _ = loopscope("get", "experiment", "s")
    head, row = out.splitlines()
    assert code == 0 and "BEST" in head
    assert " 8/8 " in row and "france-l1-last (GO), france-l1-max (GO)" in row


def test_get_lists_the_sweep_and_its_cells_and_selects_them(swept, loopscope):
    assert len(loopscope("get", "experiments")[1].splitlines()) == 1 + 1 + 8
    _, out, _ = loopscope(
        "get", "mappings", "-l", "sweep.loopscope.dev/concept=weather", "-o", "name"
    )
    assert len(out.splitlines()) == 4 and "s-weather-l1-last-mapping" in out


def test_a_sweep_stands_for_the_objects_of_all_its_cells(swept, loopscope):
    assert len(loopscope("get", "captures", "s", "-o", "name")[1].splitlines()) == 8


def test_describe_shows_the_cells(swept, loopscope):
    _, out, _ = loopscope("describe", "experiment", "s")
    assert "Cells:\n" in out and "experiment/s-weather-l2-max" in out and "Stages:" not in out


def test_a_sweep_without_steering_has_a_report_of_its_gates(swept, loopscope, tmp_path):
    code, _, _ = loopscope("report", "s", "-o", tmp_path / "s.html")
    page = (tmp_path / "s.html").read_text()
    assert code == 0 and "8 cells" in page and "after Holm" in page
    assert page.count("data-cell=") == 8


def test_a_hook_that_the_dictionary_was_not_trained_at_is_refused_where_it_stands(
    loopscope, experiment
):
    path = experiment(lambda spec: spec.update(matrix={"hook": HOOKS}))
    code, _, err = loopscope("apply", "-f", path)
    assert code == 2 and "trained at blocks.1.hook_resid_post" in err and "(in l0)" in err
    assert "usableAt: any" in err and "nothing was applied" in err

    def anywhere(spec):
        spec["matrix"] = {"hook": HOOKS}
        for side in ("coarse", "fine"):
            spec["dictionaries"][side]["usableAt"] = "any"

    assert loopscope("apply", "-f", experiment(anywhere))[0] == 0


def test_a_dictionary_of_another_width_is_told_at_the_value_that_names_it(loopscope, experiment):
    matrix = {"fine": {"own": {}, "wide": {"dictionaries.fine": {"path": "../wide"}}}}
    code, _, err = loopscope("apply", "-f", experiment(lambda s: s.update(matrix=matrix)))
    assert code == 2
    assert "spec.matrix.fine.wide.dictionaries.fine.path: this dictionary reads vectors of" in err


def test_a_sweep_is_shown_with_its_differences(swept, loopscope, experiment):
    path = experiment(lambda spec: spec.update(matrix={"cut": {"low": {"mapping.topK": 3}}}))
    code, out, _ = loopscope("diff", "-f", path)
    assert code == 1 and "spec.matrix.cut.low.mapping.topK: (not set) -> 3" in out
