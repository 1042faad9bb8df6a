"""Shared fixtures. Torch is imported by the fixtures that need it, not by every test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
