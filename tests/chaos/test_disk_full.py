"""A small disk fills up under real processes, and is freed again. Needs the right to mount."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.real import Place, eventually

pytestmark = [pytest.mark.integration, pytest.mark.long]

DISK = "24m"
FLOOR = "12MiB"
TOO_SMALL_FOR_A_STAGE = "48k"


@dataclass
class Elsewhere(Place):
    """The same experiment with its state folder in another place."""

    at: Path = field(default_factory=Path)

    @property
    def state(self) -> Path:
        return self.at


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.write()
    place.settle()
    return place


@pytest.fixture(scope="module")
def other(undisturbed: Place) -> Path:
    """Return a second spec that nobody runs."""
    folder = undisturbed.folder / "more"
    folder.mkdir()
    return undisturbed.write("other").rename(folder / "other.yaml")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounts]:
    mounts = Mounts([])
    yield mounts
    for point in mounts.points:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@dataclass
class Mounts:
    """Small file systems in memory, unmounted after the test."""

    points: list[Path]

    def mount(self, point: Path, size: str) -> Path:
        point.mkdir(parents=True)
        order = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
        try:
            answer = subprocess.run(order, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here, so no disk can be filled")
        if answer.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {answer.stderr.strip()}")
        self.points.append(point)
        return point

    def grow(self, point: Path, size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(point)], check=True)


class Run:
    """``loopscope run`` in the background, with what it said so far."""

    def __init__(self, place: Place, *options: str) -> None:
        root = ("--root", str(place.folder))
        self.process = place.start("run", str(place.specs), *root, *options)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def says(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def end(self) -> int:
        code = self.process.wait(timeout=180)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))


def apply(place: Place, path: Path) -> tuple[int, str]:
    return place.call("apply", "-f", str(path), "--root", str(place.folder))


def fill(file: Path, keep_bytes: int = 0) -> None:
    """Write until nothing but ``keep_bytes`` is free; what frees itself meanwhile, too."""
    with file.open("ab", buffering=0) as stream:
        while (free := os.statvfs(file).f_bavail * os.statvfs(file).f_frsize) > keep_bytes:
            try:
                stream.write(bytes(min(free - keep_bytes, 2**20)))
            except OSError:
                return


def test_a_stage_that_finds_its_disk_full_waits_and_goes_on_when_there_is_space(
    undisturbed: Place, mounted: Mounts, tmp_path: Path
) -> None:
    place = Elsewhere(undisturbed.folder, tmp_path / "state")
    disk = mounted.mount(place.state / "artifacts", TOO_SMALL_FOR_A_STAGE)
    apply(place, place.specs)
    run = Run(place, "--free-space-floor", "0")
    waiting = eventually(lambda: [job for job in place.jobs() if job["reason"] == "DiskFull"])
    assert waiting[0]["state"] == "pending"
    assert "bytes are free at" in waiting[0]["message"]
    eventually(lambda: '"reason": "DiskFull"' in place.call("get", "captures", "-o", "json")[1])
    mounted.grow(disk, DISK)
    assert run.end() == 0, "".join(run.lines) + place.worker_log()
    assert run.says("DiskFull")
    assert place.payloads() == undisturbed.payloads()
    assert {(job["attempts"], job["losses"]) for job in place.jobs()} == {(0, 0)}


def test_a_database_that_cannot_be_written_is_said_in_a_line_and_nothing_is_lost(
    undisturbed: Place, other: Path, mounted: Mounts, tmp_path: Path
) -> None:
    disk = mounted.mount(tmp_path / "disk", DISK)
    place = Elsewhere(undisturbed.folder, disk / "state")
    apply(place, place.specs)
    filler = disk / "filler"
    fill(filler, keep_bytes=8 * 2**20)
    run = Run(place, "--free-space-floor", FLOOR)
    eventually(lambda: "LowDiskSpace" in place.call("queue")[1])
    fill(filler)
    code, words = apply(place, other)
    assert (code, words.count("\n")) == (1, 1), words
    assert "error: DiskFull" in words and " bytes are free at" in words
    assert place.call("get", "experiments")[0] == 0, "what only reads works on"
    filler.unlink()
    eventually(lambda: _is_running(place))
    while not run.says("cannot do everything now; trying again: DiskFull"):
        fill(filler)
        assert run.process.poll() is None, "".join(run.lines)
    filler.unlink()
    assert run.end() == 0, "".join(run.lines) + place.worker_log()
    assert run.says("the trouble is over")
    assert "Traceback" not in "".join(run.lines)
    assert place.payloads() == undisturbed.payloads()
    assert {job["attempts"] for job in place.jobs()} == {0}


def _is_running(place: Place) -> bool:
    return any(job["state"] == "running" for job in place.jobs())
