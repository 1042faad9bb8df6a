"""Servers for the tests of this folder; without them they are skipped, or fail in CI."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from tests.ray_cluster import Nodes, running_cluster
from tests.s3_servers import KEYS, Kind, S3Server, has_server, running_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    pytest.importorskip("psycopg")
    from tests.postgres_server import running_server, server_programs

    if server_programs() is None and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL server on this machine; `make test-cluster` installs one")
    with running_server() as server:
        yield server


def server_of(kind: Kind) -> Iterator[S3Server]:
    pytest.importorskip("obstore")
    if not has_server(kind) and not os.environ.get("CI"):
        pytest.skip(f"no {kind} on this machine; `make test-cluster` installs it")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with running_server(kind) as server:
            yield server


@pytest.fixture(scope="session")
def localbucket() -> Iterator[S3Server]:
    yield from server_of("localbucket")


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    yield from server_of("moto")


@pytest.fixture(params=["localbucket", "moto"])
def s3(request: pytest.FixtureRequest) -> S3Server:
    """Each of the two."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[Nodes]:
    """A Ray cluster of a head and two nodes."""
    if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
        pytest.skip("no Ray here; `make test-cluster` installs it")
    with running_cluster() as nodes:
        yield nodes


@pytest.fixture(scope="session")
def ray_cluster(ray_nodes: Nodes) -> Iterator[object]:
    """The same, which this process is part of."""
    from loopscope.controller.jobs.on_ray.cluster import joined

    with joined(ray_nodes.address) as cluster:
        yield cluster
