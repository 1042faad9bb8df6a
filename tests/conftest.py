"""Shared fixtures. Torch is imported by the fixtures that need it, not by every test run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loopscope.worker.models import LoadedModel
    from tests.stage_world import World

# Two processes of tests share the cores, so neither they nor their workers take more than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOOPSCOPE_TORCH_THREADS", "1")

# The same examples every time, in every checkout; `LOOPSCOPE_HYPOTHESIS=deep` looks for new ones.
_SLOW_IS_FINE = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "report_multiple_bugs": False,
}
settings.register_profile(
    "ci", derandomize=True, database=None, max_examples=50, stateful_step_count=40, **_SLOW_IS_FINE
)
settings.register_profile(
    "deep", database=None, max_examples=2000, stateful_step_count=60, print_blob=True,
    **_SLOW_IS_FINE,
)  # fmt: skip
settings.load_profile(os.environ.get("LOOPSCOPE_HYPOTHESIS", "ci"))


@pytest.fixture(scope="session", autouse=True)
def database_on_a_server() -> Iterator[None]:
    """With ``LOOPSCOPE_TEST_DATABASE=postgresql`` every new state folder has its database there."""
    if not os.environ.get("LOOPSCOPE_TEST_DATABASE"):
        yield
        return
    from tests.postgres_server import running_server, states_on

    with running_server() as server, states_on(server):
        yield


@pytest.fixture(autouse=True)
def logs_as_they_come() -> Iterator[None]:
    """A simulation silences the log of its process; the tests after it hear theirs again."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rope_model_folder(tmp_path_factory: pytest.TempPathFactory, one_torch_thread: None) -> Path:
    from tests.tiny_models import save_rope_model

    return save_rope_model(tmp_path_factory.mktemp("models") / "rope")


@pytest.fixture(scope="session")
def learned_position_model_folder(
    tmp_path_factory: pytest.TempPathFactory, one_torch_thread: None
) -> Path:
    from tests.tiny_models import save_learned_position_model

    return save_learned_position_model(tmp_path_factory.mktemp("models") / "learned_position")


@pytest.fixture(scope="session")
def rope_model(rope_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return _load(rope_model_folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def learned_position_model(
    learned_position_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    return _load(learned_position_model_folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["rope_model", "learned_position_model"])
def any_model(request: pytest.FixtureRequest) -> LoadedModel:
    """Each test that asks for it runs on both shapes of position encoding."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def world(any_model: LoadedModel, tmp_path: Path) -> World:
    """A stage's surroundings, empty."""
    from tests.stage_world import World

    return World(any_model, tmp_path)


@pytest.fixture
def steering_world(world: World) -> World:
    """A stage's surroundings with everything that steering reads."""
    from tests.stage_world import add_steering_inputs

    return add_steering_inputs(world)


def _load(folder: Path, cache: Path) -> LoadedModel:
    from loopscope.worker.models import load_model
    from tests.tiny_models import folder_reference

    return load_model(folder_reference(folder), cache, "cpu", lambda *progress: None)
