"""How much does `loopscope serve` bear: long lists, many watchers, in what memory?

Run with ``.venv/bin/python benchmarks/api.py [objects] [watchers]`` (default 10,000 and 500;
needs the extra ``serve``). One server, as a process, over TLS. Each list is asked for in turns
with the same made object by object from records, in this process, as what is asked for one by one
is made. Prints wall time and the server's processor time. Exit status 1 when a claim is missed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from loopscope.server.answers import encoded
from loopscope.server.choosing import choice_of
from loopscope.server.documents import Shape, seen, whole
from loopscope.server.reading import get_list
from loopscope.server.resources import resource_of
from loopscope.server.settings import ServerSettings
from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder, open_state
from tests.simulated import settled_experiment

REPOSITORY = Path(__file__).parents[1]
JSON = "application/json"
PATH = "/apis/loopscope.dev/v1alpha1/namespaces/default/mappings"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
VERSION = re.compile(rb'"resourceVersion": "([0-9]+)"')
ROUNDS, CHANGES, AT_ONCE = 2, 200, 10
WATCHES_MAX = ServerSettings().watchers_max
LIST_SECONDS, SERVER_BYTES, PATIENCE_SECONDS = 0.3, 200e6, 120.0


@dataclass(frozen=True)
class Running:
    """A server: its process, where it listens, and how it is asked."""

    process: psutil.Process
    port: int
    token: str
    trusted: ssl.SSLContext

    async def opened(self, path: str, accept: str = JSON) -> Opened:
        """Ask, and return the answer up to the end of its head."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trusted, limit=2**26
        )
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        writer.write(f"{head}Authorization: Bearer {self.token}\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        return Opened(int(answer.split()[1]), reader, writer)


class Opened(NamedTuple):
    """An answer whose head was read."""

    code: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def chunk(self) -> bytes:
        """Return the next piece of the body; empty at its end."""
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]


def main(number: int, watchers: int) -> int:
    """Measure; return how many claims were missed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        settled_experiment(path).state.database.close()
        size = fill(path / "state.db", number)
        print(f"{number:,} mappings of {size / 1000:.1f} kB each (spec and status)")
        return asyncio.run(measured(path, number, watchers))


def fill(database: Path, number: int) -> float:
    """Copy the one mapping until there are so many; return how many bytes of JSON each holds."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        first = dict(connection.execute("select * from objects where kind = 'Mapping'").fetchone())
        (version,) = connection.execute(
            "select value from counters where name = 'resource_version'"
        ).fetchone()
        first |= {"owner_kind": None, "owner_name": None, "owner_uid": None}
        rows = [
            {
                **first,
                "name": f"m{n:05d}",
                "uid": str(uuid.uuid4()),
                "resource_version": version + n,
            }
            for n in range(1, number + 1)
        ]
        marks = ", ".join(f":{name}" for name in first)
        connection.execute("delete from objects where kind = 'Mapping'")
        connection.executemany(f"insert into objects ({', '.join(first)}) values ({marks})", rows)
        connection.execute(
            "update counters set value = ? where name = 'resource_version'", (version + number,)
        )
        connection.execute("delete from changes")
        connection.execute(
            "insert into changes values (?, 'ADDED', 'Mapping', 'default', ?)",
            (version + number, f"m{number:05d}"),
        )
        connection.commit()
    return float(len(first["spec"]) + len(first["status"]))


async def measured(path: Path, number: int, watchers: int) -> int:
    """Measure all claims against one server."""
    state = open_state(path)
    async with running(path) as server:
        print(f"server, before anything is asked: {megabytes(server):.0f} MB")
        missed = await lists(server, state, number)
        print(f"server, behind the lists: {megabytes(server):.0f} MB")
        missed += await watched(server, state, watchers)
        missed += await resumed(server, state, watchers)
        size = largest_megabytes(server)
        missed += told("server, at its largest", f"{size:.0f} MB", size * 1e6 < SERVER_BYTES)
        missed += await crowded(server, state)
    for together in (1, min(50, watchers)):
        async with running(path) as server:
            missed += await all_at_once(server, state, number, together)
    return missed


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Running]:
    """Run a server until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loopscope", "--state", str(path), "serve", "--port", "0"],
        cwd=REPOSITORY, env=os.environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().split()[0].rpartition(":")[2])
        trusted = ssl.create_default_context(cafile=str(path / "server/certificate.pem"))
        trusted.check_hostname = False
        token = (path / "server/token").read_text()
        yield Running(psutil.Process(process.pid), port, token, trusted)
    finally:
        process.kill()
        process.wait()


def megabytes(server: Running) -> float:
    """Return the resident memory of the server."""
    return float(server.process.memory_info().rss) / 1e6


def largest_megabytes(server: Running) -> float:
    """Return the largest resident memory that the server had so far (Linux)."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def told(what: str, value: str, within: bool) -> int:
    """Print one line; return 1 if the claim was missed."""
    print(f"{what}: {value}{'' if within else '  MISSED'}", flush=True)
    return int(not within)


# -- lists --------------------------------------------------------------------------------


async def lists(server: Running, state: StateFolder, number: int) -> int:
    """Ask for all objects, for all rows and for a page, beside the objects made one by one."""
    questions = {
        "objects": (PATH, JSON),
        "rows": (PATH, TABLE),
        "page": (f"{PATH}?limit=500", TABLE),
    }
    taken: dict[str, list[Taken]] = {what: [] for what in questions}
    slow, quick = [], []
    for _ in range(ROUNDS):
        slow.append(worked(lambda: object_by_object(state)))
        quick.append(worked(lambda: answer_alone(state)))
        for what, (path, accept) in questions.items():
            taken[what].append(await list_taken(server, path, accept))
    one_by_one, alone = min(slow), min(quick)
    print(f"objects, made one by one: {one_by_one * 1000:.0f} ms of a processor")
    print(f"objects, made as a list: {alone * 1000:.0f} ms ({one_by_one / alone:.1f} times less)")
    for what, found in taken.items():
        best = min(found, key=lambda one: one.processor)
        print(
            f"list, {what}: {best.processor * 1000:.0f} ms of the server's processor time at best "
            f"({best.wall * 1000:.0f} ms of wall time), {best.bytes / 1e6:.1f} MB"
        )
    best = min(taken["objects"])
    return told(f"{number:,} objects", f"{best.wall * 1000:.0f} ms", best.wall < LIST_SECONDS)


def answer_alone(state: StateFolder) -> None:
    """Make the answer of a list without any network."""
    choice = choice_of(resource_of("mappings"), "default", {})
    assert sum(map(len, get_list(state, choice, {}, Shape(), now=time.time())))


def object_by_object(state: StateFolder) -> None:
    """Make the answer of a list from records, as what is asked for one by one is made."""
    with state.database.read() as connection:
        found = seen(connection, objects.listed(connection, "Mapping"), with_owned=False)
    encoded({"items": [whole(one) for one in found]})


class Taken(NamedTuple):
    """What one answer took, from the question to its last byte."""

    wall: float
    processor: float
    bytes: int


async def list_taken(server: Running, path: str, accept: str) -> Taken:
    """Ask for a list."""
    before, began = processor_seconds(server), time.perf_counter()
    answer = await server.opened(path, accept)
    chunks = []
    while chunk := await answer.chunk():
        chunks.append(chunk)
    wall = time.perf_counter() - began
    body = b"".join(chunks)
    assert answer.code == 200 and json.loads(body)["kind"]
    answer.writer.close()
    return Taken(wall, processor_seconds(server) - before, len(body))


def processor_seconds(server: Running) -> float:
    """Return how long the server computed so far."""
    times = server.process.cpu_times()
    return float(times.user + times.system)


def worked(what: Callable[[], object]) -> float:
    """Return the processor time of a call, in seconds."""
    began = time.process_time()
    what()
    return time.process_time() - began


# -- watchers -----------------------------------------------------------------------------


@dataclass
class Heard:
    """What one watcher heard, and when."""

    versions: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)


async def watched(server: Running, state: StateFolder, watchers: int) -> int:
    """Open many watches, change many objects, and see what each watcher hears."""
    with state.database.read() as connection:
        version = objects.resource_version(connection)
    path = f"{PATH}?watch=1&resourceVersion={version}"
    streams = [await server.opened(path) for _ in range(watchers)]
    heard = [Heard() for _ in streams]
    listening = [
        asyncio.create_task(listen(one, into)) for one, into in zip(streams, heard, strict=True)
    ]
    made: dict[int, float] = {}
    for start in range(0, CHANGES, AT_ONCE):
        made |= await asyncio.to_thread(changed, state, range(start, start + AT_ONCE))
        await asyncio.sleep(0.1)
    await asyncio.wait_for(asyncio.gather(*listening), PATIENCE_SECONDS)
    for one in streams:
        one.writer.close()
    waits = sorted(
        moment - made[version]
        for one in heard
        for version, moment in zip(one.versions, one.at, strict=True)
        if version in made
    )
    right = all(one.versions == sorted(made) for one in heard)
    text = f"half within {waits[len(waits) // 2]:.2f} s, all within {waits[-1]:.2f} s"
    return told(f"{watchers} watchers, each of {CHANGES} changes once and in order", text, right)


async def resumed(server: Running, state: StateFolder, watchers: int) -> int:
    """Let as many watchers come back at once that have missed as many changes."""
    with state.database.read() as connection:
        version = objects.resource_version(connection)
    made: dict[int, float] = {}
    for start in range(0, CHANGES, AT_ONCE):
        made |= changed(state, range(start, start + AT_ONCE))
    before, began = processor_seconds(server), time.perf_counter()
    heard = [Heard() for _ in range(watchers)]

    async def come_back(into: Heard) -> None:
        stream = await server.opened(f"{PATH}?watch=1&resourceVersion={version}")
        await listen(stream, into)
        stream.writer.close()

    await asyncio.wait_for(asyncio.gather(*map(come_back, heard)), PATIENCE_SECONDS)
    taken, wall = processor_seconds(server) - before, time.perf_counter() - began
    right = all(one.versions == sorted(made) for one in heard)
    text = f"{taken:.1f} s of the server's processor time, {wall:.1f} s of wall time"
    return told(f"{watchers} watchers come back, {CHANGES} changes behind", text, right)


async def all_at_once(server: Running, state: StateFolder, number: int, watchers: int) -> int:
    """Change every object in one commit, and see what watchers hear, and in what memory."""
    with state.database.read() as connection:
        version = objects.resource_version(connection)
    path = f"{PATH}?watch=1&resourceVersion={version}"
    streams = [await server.opened(path) for _ in range(watchers)]
    heard = [Heard() for _ in streams]
    listening = [
        asyncio.create_task(listen(one, into, number))
        for one, into in zip(streams, heard, strict=True)
    ]
    before, began = megabytes(server), processor_seconds(server)
    made = await asyncio.to_thread(changed, state, range(number))
    await asyncio.wait_for(asyncio.gather(*listening), 10 * PATIENCE_SECONDS)
    for one in streams:
        one.writer.close()
    last = max(into.at[-1] for into in heard) - max(made.values())
    right = all(one.versions == sorted(made) for one in heard)
    size, spent = largest_megabytes(server), processor_seconds(server) - began
    text = (
        f"once and in order, within {last:.0f} s and {spent:.0f} s of the server's processor "
        f"time; {before:.0f} MB before, {size:.0f} MB at its largest"
    )
    what = f"one commit changes {number:,} objects, {watchers} watchers"
    return told(what, text, right and size * 1e6 < SERVER_BYTES)


async def listen(stream: Opened, into: Heard, number: int = CHANGES) -> None:
    """Read a watch until it has told of so many changes."""
    rest = b""
    while len(into.versions) < number:
        rest += await stream.chunk()
        *lines, rest = rest.split(b"\n")
        for line in lines:
            found = VERSION.search(line)
            assert found is not None
            into.versions.append(int(found[1]))
            into.at.append(time.time())


def changed(state: StateFolder, numbers: range) -> dict[int, float]:
    """Annotate objects, in one transaction; return when each version was made."""
    with state.database.write() as connection:
        versions = []
        for number in numbers:
            record = objects.get(connection, Key("Mapping", "default", f"m{number + 1:05d}"))
            assert record is not None
            objects.annotate(connection, record, "example.org/seen", str(time.time()))
            versions.append(objects.resource_version(connection))
    return dict.fromkeys(versions, time.time())


async def crowded(server: Running, state: StateFolder) -> int:
    """Open more watches than are allowed: those beyond are refused, the others go on."""
    with state.database.read() as connection:
        version = objects.resource_version(connection)
    path = f"{PATH}?watch=1&resourceVersion={version}"
    streams = [await server.opened(path) for _ in range(WATCHES_MAX + 50)]
    codes = Counter(one.code for one in streams)
    for one in streams:
        one.writer.close()
    text = f"{codes[200]} open, {codes[429]} refused; {megabytes(server):.0f} MB"
    return told(f"{len(streams):,} watchers", text, codes == {200: WATCHES_MAX, 429: 50})


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(given + [10_000, 500][len(given) :])))
