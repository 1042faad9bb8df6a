"""The notebook's larger tables: activations, residuals, sweeps, rich display; apply and run."""

import re
import signal
import sys
from importlib.metadata import version

import numpy as np
import pandas
import pytest
import scipy.sparse

import loopscope
from loopscope import making
from loopscope.specs.errors import InvalidSpec
from loopscope.views.activations import PromptActivations
from tests.simulated import Simulation, experiment_spec
from tests.unit.reports_case import build
from tests.unit.reports_payloads import HOSTILE


@pytest.fixture
def folder(tmp_path):
    state, _ = build(tmp_path)
    state.database.close()
    return state.path


@pytest.fixture
def france(folder):
    return loopscope.open(folder).experiments["france"]


# -- activations and residuals -------------------------------------------------------------


@pytest.mark.parametrize("side", ["coarse", "fine"])
def test_activations_are_sparse_and_fit_the_prompts_and_the_features(france, side):
    found = france.activations(side)
    features = france.features(side)
    assert found.matrix.shape == (len(found.prompts), len(features))
    assert found.matrix.dtype == np.float32
    fires = np.asarray((found.matrix > 0).sum(axis=0)).ravel()
    assert fires.tolist() == features["n_firing"].tolist()
    assert re.fullmatch(r"<activations: \d+ prompts x \d+ latents, \d+ not 0>", repr(found))


def test_activations_are_a_table_of_the_latents_that_are_asked_for(france):
    found = france.activations()
    frame = found.frame([2, 0])
    assert list(frame.columns) == [2, 0] and list(frame.index) == list(found.prompts["prompt_id"])
    assert np.array_equal(frame.to_numpy(), found.matrix[:, [2, 0]].toarray())
    assert found.frame().shape == found.matrix.shape
    with pytest.raises(IndexError, match="latents are 0 to"):
        found.frame([10_000])
    with pytest.raises(ValueError, match="'coarse' or 'fine'"):
        france.activations("both")


def test_top_prompts_are_the_strongest_and_none_is_silent(france):
    latent = int(france.features().query("candidate")["latent"].iloc[0])
    column = france.activations().matrix[:, [latent]].toarray()[:, 0]
    top = france.top_prompts(latent, count=3)
    assert top["activation"].tolist() == sorted(column[column > 0], reverse=True)[:3]
    assert {"prompt_id", "text", "condition"} <= set(top.columns)
    silent = np.flatnonzero(~np.asarray((france.activations().matrix > 0).sum(axis=0)).astype(bool))
    for one in silent[:1]:
        assert france.top_prompts(int(one)).empty


def test_activations_are_an_xarray_whose_prompts_have_their_condition(france):
    pytest.importorskip("xarray", reason="pip install '.[xarray]'")
    found = france.activations()
    array = found.data_array([2, 0])
    assert array.dims == ("prompt_id", "latent") and array.latent.values.tolist() == [2, 0]
    assert np.array_equal(array.values, found.matrix[:, [2, 0]].toarray())
    first = found.prompts.iloc[0]
    assert array.sel(prompt_id=first["prompt_id"]).condition.item() == first["condition"]
    assert array.groupby("condition").mean().sizes["condition"] == 2
    assert array.attrs["experiment"] == "france"
    every = found.data_array()
    assert every.values.sum() == pytest.approx(found.matrix.sum())
    assert (every.values > 0).any(axis=0).all()
    with pytest.raises(IndexError, match="latents are 0 to"):
        found.data_array([10_000])


def test_without_xarray_one_line_says_what_to_install(france, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'loopscope\[xarray\]'$"):
        france.activations().data_array([0])


# -- origin --------------------------------------------------------------------------------


def test_a_table_says_where_it_comes_from_and_a_parquet_file_of_it_too(france, tmp_path):
    tables = {"mapping": france.pairs(), "coarse": france.features(), "steering": france.arms()}
    for stage, table in tables.items():
        artifact = france.artifacts[stage]
        assert table.attrs["experiment"] == "france" and table.attrs["namespace"] == "default"
        assert (table.attrs["stage"], table.attrs["digest"]) == (artifact.stage, artifact.digest)
        assert set(table.attrs["units"]) <= set(table.columns)
    assert tables["coarse"].attrs["units"]["firing_rate_target"] == "0 to 1"
    tables["coarse"].to_parquet(tmp_path / "mine.parquet")
    assert pandas.read_parquet(tmp_path / "mine.parquet").attrs == tables["coarse"].attrs


def test_what_is_made_of_activations_says_where_it_comes_from(france):
    digest = france.artifacts["coarse"].digest
    made = france.activations().frame([0]), france.top_prompts(0)
    assert [table.attrs["digest"] for table in made] == [digest, digest]
    assert france.residuals().attrs["digest"] == france.artifacts["capture"].digest


def test_residuals_have_a_row_for_each_vector_that_was_kept(france):
    frame = france.residuals()
    assert frame.index.names == ["prompt_id", "position"]
    assert set(frame.index.get_level_values("prompt_id")) <= set(france.prompts()["prompt_id"])
    assert frame.shape[1] == 6 and np.isfinite(frame.to_numpy()).all()


# -- sweeps --------------------------------------------------------------------------------


def test_a_sweep_is_one_table_with_its_axes_as_columns(tmp_path):
    world = Simulation(tmp_path / "state")
    matrix = {"cosine": {"low": {"mapping.minCosine": 0.2}, "high": {"mapping.minCosine": 0.4}}}
    world.apply({**experiment_spec(), "matrix": matrix})
    world.settle()
    experiments = loopscope.open(tmp_path / "state").experiments
    table = experiments.sweep("france")
    assert table["cosine"].to_dict() == {"france-high": "high", "france-low": "low"}
    assert table["ready"].all() and "gate" in table.columns
    assert list(table.columns[:2]) == ["cosine", "ready"]
    assert {"state", "percentile", "corrected", "p"} <= set(table.columns)
    with pytest.raises(KeyError, match="no sweep"):
        experiments.sweep("france-low")


def test_a_sweep_that_nobody_has_reconciled_has_its_cells_and_any_names_of_axes(tmp_path):
    world = Simulation(tmp_path / "state")
    values = {"low": {"mapping.minCosine": 0.2}, "high": {"mapping.minCosine": 0.4}}
    world.apply({**experiment_spec(), "matrix": {"gate": values}})
    table = loopscope.open(tmp_path / "state").experiments.sweep("france")
    assert table["gate_axis"].to_dict() == {"france-high": "high", "france-low": "low"}
    assert not table["ready"].any() and set(table["state"]) == {"NotCreated"}
    assert table["gate"].isna().all()


# -- display -------------------------------------------------------------------------------


def test_what_is_shown_in_a_notebook_is_a_table_and_holds_no_foreign_markup(folder, france):
    state = loopscope.open(folder)
    for shown in (state, state.experiments, france):
        markup = shown._repr_html_()
        assert "<table" in markup and "france" in markup and HOSTILE not in markup
    assert "gate" in state.experiments._repr_html_()


def test_activations_are_shown_by_the_latents_that_fire_on_most_prompts(france):
    markup = france.activations()._repr_html_()
    busiest = france.features()["n_firing"].idxmax()
    assert "prompts x" in markup and markup.index("<tbody") < markup.index(f"<td>{busiest}</td>")
    silent = PromptActivations(scipy.sparse.csr_array((2, 3), dtype=np.float32), france.prompts())
    assert "2 prompts x 3 latents, 0 not 0" in silent._repr_html_()


def test_the_version_is_that_of_the_package():
    assert loopscope.__version__ == version("loopscope")
    with pytest.raises(AttributeError, match="no attribute 'verison'"):
        _ = loopscope.verison


# -- apply and run -------------------------------------------------------------------------


def test_apply_stores_what_a_file_says_or_nothing(experiment, tmp_path):
    path, state = experiment(), tmp_path / "state"
    good = path.read_text()
    path.write_text(good.replace("hook:", "hok:"))
    with pytest.raises(InvalidSpec):
        loopscope.apply(path, state=state, root=tmp_path)
    assert not state.exists()
    path.write_text(good)
    assert loopscope.apply(path, state=state, root=tmp_path) == {"experiment/x": "created"}
    again = loopscope.apply(str(path), state=str(state), root=str(tmp_path))
    assert again == {"experiment/x": "unchanged"}
    assert list(loopscope.open(state).experiments) == ["x"]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Let a shell script stand for the interpreter that runs ``loopscope run``."""

    def use(lines):
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setattr(making.sys, "executable", str(script))

    return use


def test_run_passes_each_line_on_and_returns_the_state(folder, program):
    program('echo "$@"; echo second >&2')
    lines = []
    state = loopscope.run("specs", "--slots=2", state=folder, progress=lines.append)
    assert lines[0] == f"-m loopscope --state {folder} run specs --slots=2"
    assert lines[1:] == ["second"] and isinstance(state.experiments.table(), pandas.DataFrame)


def test_a_run_that_stalls_raises_with_its_last_lines_and_status(folder, program):
    program("echo experiment/x is Stalled; exit 1")
    with pytest.raises(making.RunFailed, match="is Stalled") as failed:
        loopscope.run("specs", state=folder, progress=None)
    assert failed.value.exit_code == 1


@pytest.fixture
def interrupts_are_heard():
    """Tests that run in the background ignore interrupts, and so does all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_of_the_notebook_interrupts_the_run(
    folder, program, tmp_path, interrupts_are_heard
):
    program(f"trap 'echo stopped > {tmp_path}/stopped; exit 130' INT; echo begun; sleep 30 & wait")

    def interrupt(_line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loopscope.run("specs", state=folder, progress=interrupt)
    assert (tmp_path / "stopped").read_text() == "stopped\n"
