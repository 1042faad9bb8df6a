"""Prompts and directions in the plane: shares of variance, lengths of arrows, what is not there."""

import numpy as np
import pytest

from loopscope.specs.artifacts.capture import RESIDUAL
from loopscope.specs.artifacts.mapping import DIRECTIONS_VECTORS
from loopscope.views.experiment import ExperimentView
from loopscope.views.navigator import mean_rows, navigator, principal, spanned
from loopscope.views.tensors import read_tensors
from tests.unit.reports_case import build


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state")))


def test_the_principal_plane_is_that_of_the_largest_singular_values():
    rng = np.random.default_rng(0)
    for shape in ((40, 9), (9, 40)):
        rows = rng.normal(size=shape) * (1 + np.arange(shape[1]))
        centred = rows - rows.mean(axis=0)
        basis = principal(centred)
        singular = np.linalg.svd(centred, compute_uv=False)
        assert basis @ basis.T == pytest.approx(np.eye(2), abs=1e-9)
        assert ((centred @ basis.T) ** 2).sum(axis=0) == pytest.approx(singular[:2] ** 2)
        assert (basis[np.arange(2), np.abs(basis).argmax(axis=1)] > 0).all()


def test_two_directions_span_a_plane_unless_they_are_one():
    first, second = np.array([1.0, 0, 0]), np.array([0.6, 0.8, 0])
    assert spanned(first, second) == pytest.approx(np.eye(3)[:2])
    assert spanned(first, first) is None


def test_a_prompt_of_several_tokens_is_their_mean_and_none_may_be_missing():
    rows = np.array([[1.0, 0], [3, 0], [0, 5]])
    assert mean_rows(rows, np.array([0, 0, 1]), 2).tolist() == [[2, 0], [0, 5]]
    with pytest.raises(ValueError, match="not those of the prompts"):
        mean_rows(rows, np.array([0, 0, 2]), 3)


def test_points_are_the_captured_vectors_about_their_mean(view):
    seen = navigator(view)
    residual = read_tensors(view.stage("capture").path(RESIDUAL.name))["residual"]
    centred = residual - residual.mean(axis=0)
    plane = seen.planes[0]
    assert len(seen.prompt_id) == len(residual) and set(seen.condition) == {"target", "neutral"}
    assert plane.points.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    share = (plane.points**2).sum() / (centred**2).sum()
    assert sum(plane.variance) == pytest.approx(share, rel=1e-5)
    basis = principal(centred.astype(np.float64))
    vectors = read_tensors(view.stage("mapping").path(DIRECTIONS_VECTORS.name))
    for arrow in plane.arrows:
        assert [arrow.x, arrow.y] == pytest.approx(basis @ vectors[arrow.name], abs=1e-6)
        assert 0 <= arrow.share <= 1 + 1e-9


def test_without_a_mapping_there_are_prompts_and_the_reason_why_there_is_no_arrow(tmp_path):
    found = ExperimentView.load(*build(tmp_path, stages=("capture", "coarse", "fine")))
    seen = navigator(found)
    assert len(seen.planes) == 1 and not seen.planes[0].arrows
    assert "mapping" in seen.note


def test_without_a_capture_there_is_the_reason(tmp_path):
    found = ExperimentView.load(*build(tmp_path, stages=()))
    assert navigator(found).planes == () and navigator(found).problem
