"""One fork server and one fault-free run for all tests with real kills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.chaos.bench import Bench
from tests.chaos.fork_server import ForkServer
from tests.chaos.verdict import reference_payloads


@dataclass
class Workshop:
    """Inputs and specs, the server, and what the specs give when nobody is killed."""

    folder: Path
    server: ForkServer
    expected: dict[str, str]
    _numbers: Iterator[int]

    def new_bench(self) -> Bench:
        """Return the same inputs with an empty state folder."""
        return Bench.at(self.folder, self.server, f"state-{next(self._numbers)}")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("workshop")
    with ForkServer(folder / "server") as server:
        expected = reference_payloads(folder / "place", server)
        yield Workshop(folder / "place", server, expected, count())


@pytest.fixture
def bench(workshop: Workshop) -> Iterator[Bench]:
    """An empty state folder; whatever a test leaves running ends with it."""
    bench = workshop.new_bench()
    yield bench
    bench.kill_everything()
