"""Obstacles to work on a machine or a state folder, beside how large and fast they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from loopscope.controller.jobs.limits import below_floor
from loopscope.controller.jobs.local_processes import missing_worker_libraries
from loopscope.controller.settings import Settings
from loopscope.inputs.hub import hub_is_switched_off
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.artifacts.store import ArtifactStore
from loopscope.state.db import leader
from loopscope.state.failures import Failure
from loopscope.state.files import free_bytes
from loopscope.state.folder import has_database
from loopscope.state.read_only import open_to_read

Standing = Literal["ok", "note", "problem"]
PROCESSOR_FLAGS = Path("/proc/cpuinfo")
_LIBRARIES = ("torch", "transformers", "sae-lens")


@dataclass(frozen=True)
class Check:
    """One look: what was found, and whether somebody must act (``problem``)."""

    name: str
    standing: Standing
    found: str


def examine(state_path: Path, settings: Settings) -> list[Check]:
    """Look at the machine and the state. Nothing is changed, and no network asked for more."""
    return [_libraries(), _instructions(), *_state(state_path, settings), _hub()]


def _libraries() -> Check:
    missing = missing_worker_libraries()
    if missing:
        words = f"{', '.join(missing)} not installed; pip install 'loopscope[worker]' to compute"
        return Check("workers", "problem", words)
    return Check("workers", "ok", ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _instructions() -> Check:
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    wide = _wide_instructions()
    return Check("threads", "note" if wide == "no AVX2" else "ok", f"{wide}{limit}")


def _wide_instructions() -> str:
    try:
        text = PROCESSOR_FLAGS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "instructions not known"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), None)
    if flags is None:
        return "instructions not known"
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"


def _state(path: Path, settings: Settings) -> Iterator[Check]:
    place = next(one for one in (path, *path.absolute().parents) if one.is_dir())
    low = below_floor(free_bytes(place), settings.free_space_floor_bytes)
    yield Check("space", "problem" if low else "ok", low or "enough to start jobs")
    if not has_database(path):
        yield Check("folder", "note", f"none at {path}; apply or run makes one")
        return
    try:
        state = open_to_read(path)
        with state.database.read() as connection:
            alive = leader.living(connection)
    except (Failure, OSError) as error:
        yield Check("folder", "problem", f"{path}: {error}")
        return
    yield Check("folder", "ok", "it can be read")
    yield _artifacts(state.artifacts)
    words = (
        f"controller process {alive.process.partition('@')[0]}"
        if alive
        else "no controller runs here"
    )
    yield Check("control", "ok" if alive else "note", words)


def _artifacts(artifacts: ArtifactStore) -> Check:
    try:
        artifacts.holds(next(iter(CODE_REVISIONS)), "0" * 64)
    except OSError as error:
        return Check("store", "problem", str(error))
    return Check("store", "ok", f"artifacts are kept in {artifacts.place}")


def _hub() -> Check:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    token = "a token is set" if os.environ.get("HF_TOKEN") else "no token in HF_TOKEN"
    offline = hub_is_switched_off()
    state = "HF_HUB_OFFLINE is set: nothing is looked up" if offline else token
    return Check("hub", "note" if offline else "ok", f"{state}; downloads in {home}")
