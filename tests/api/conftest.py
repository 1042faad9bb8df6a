"""A server as a process, and the clients of Kubernetes that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loopscope.server.identity import identity_in, write_kubeconfig
from loopscope.state.folder import open_state
from tests.served import Served, served
from tests.unit.conftest import experiment, loopscope

__all__ = ["experiment", "loopscope"]
SECONDS_MAX = 180


def missing(what: str) -> None:
    """Fail under continuous integration, where nothing may be missing; elsewhere skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def kubectls() -> list[str]:
    """Return the kubectl of this environment, then others of the path."""
    folders = [str(Path(sys.executable).parent), *os.environ.get("PATH", "").split(os.pathsep)]
    found = [shutil.which("kubectl", path=folder) for folder in folders]
    return list(dict.fromkeys(str(Path(one).resolve()) for one in found if one))


@dataclass(frozen=True)
class Kubectl:
    """One kubectl, and the state folder that the server serves."""

    program: str
    kubeconfig: Path
    folder: Path
    minor: int

    def __call__(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *words],
            env={**self.environment, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
        # an own home: kubectl caches discovery there by address
        return {**kept, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder / "home")}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *words],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def server(tmp_path: Path, experiment, loopscope) -> Iterator[Served]:
    """A server that writes, in a folder with the spec of an experiment x that is applied."""
    assert loopscope("apply", "-f", experiment())[0] == 0
    now, place = time.time(), tmp_path / "kubeconfig"
    identity = identity_in(tmp_path / "identity", now)
    state = open_state(tmp_path / "state")
    limits = {"writable": True, "root": tmp_path, "poll_seconds": 0.05}
    with served(state, tmp_path / "specs", time.time, identity, **limits) as running:
        write_kubeconfig(place, identity, f"https://127.0.0.1:{running.port}")
        yield running


@pytest.fixture
def kubeconfig(server: Served, tmp_path: Path) -> Path:
    """The file from which clients know the server."""
    return tmp_path / "kubeconfig"


@pytest.fixture(params=range(3))
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Kubectl:
    """Each kubectl that this machine has."""
    found = kubectls()
    if not found and request.param == 0:
        missing("no kubectl: make test-api installs one")
    if request.param >= len(found):
        pytest.skip("no further kubectl on the path")
    version = subprocess.run(
        [found[request.param], "version", "--client", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    minor = int("".join(filter(str.isdigit, version.split('"minor": "')[1].split('"')[0])))
    return Kubectl(found[request.param], kubeconfig, tmp_path, minor)
