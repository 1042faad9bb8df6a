"""Servers for the tests of this folder; without them they are skipped, or fail in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

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
