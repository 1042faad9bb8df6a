"""``doctor``: what this machine is, does and has left for what a spec would need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from loopscope.commands.options import FilesOrElseOption, RootOption
from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import (
    CommandError,
    Globals,
    forecaster_of_this_machine,
    now,
    rates_of_this_machine,
)
from loopscope.terminal.printable import printable
from loopscope.views.numbers import age, byte_size, counted

if TYPE_CHECKING:
    from loopscope.controller.maintenance.doctor import Check

EXIT_PROBLEMS = 1
PROBE_TIMEOUT_SECONDS = 300.0
NAME_WIDTH = 10


class Machine(TypedDict):
    """What ``doctor -o json`` prints; null is what is not known."""

    processor: str | None
    cores: int
    memoryBytes: int | None
    memoryFreeBytes: int | None
    device: str
    flopsPerSecond: float | None
    bytesPerSecond: float | None
    threads: int | None
    probedAt: float | None
    state: str
    stateFreeBytes: int | None
    cache: str
    cacheFreeBytes: int | None
    models: int
    modelsBytes: int
    dictionaries: int
    dictionariesBytes: int


EXAMPLES = {
    "doctor": ("doctor", "doctor --probe", "doctor -f specs/france.yaml"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure anew what this machine does; a few seconds.")
    ] = False,
    filename: FilesOrElseOption = None,
    root: RootOption = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Print machine, memory, disk, model cache, and the rates by which plan foresees times.

    Then what may keep it from work (exit 1 when something does), and with -f what specs need.
    """
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    context.obj.refuse_namespace("doctor")
    if probe:
        _probe()
    found = _machine(context.obj.state_path)
    checks = _checks(context.obj, filename or [], root)
    if output == "json":
        said = [{"name": c.name, "standing": c.standing, "found": c.found} for c in checks]
        print(json.dumps({**found, "checks": said}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([*_lines(found), *map(_check_line, checks)]))
    if any(check.standing == "problem" for check in checks):
        raise typer.Exit(EXIT_PROBLEMS)


def _check_line(check: Check) -> str:
    word = "" if check.standing == "ok" else f"{check.standing}: "
    words = " ".join(check.found.split())
    return printable(f"{check.name.capitalize() + ':':<{NAME_WIDTH}}{word}{words}")


def _checks(options: Globals, paths: Sequence[Path], root: Path | None) -> list[Check]:
    from loopscope.commands.limit_options import settings_of_file
    from loopscope.controller.maintenance.doctor import examine  # late: help must stay quick
    from loopscope.controller.settings import Settings

    settings = Settings(**settings_of_file(options.state_path))
    return [
        *examine(options.state_path, settings),
        *(_needs(options, paths, root) if paths else ()),
    ]


def _needs(options: Globals, paths: Sequence[Path], root: Path | None) -> list[Check]:
    """Return what the specs would need that is not done yet. Raises InvalidSpec."""
    from loopscope.commands.applying.apply import existing, request_of
    from loopscope.controller.maintenance.doctor import Check
    from loopscope.controller.plan.requests import planned, read_files
    from loopscope.controller.plan.unchecked import unchecked_inputs

    state = existing(options, to_read=True)
    reading = read_files(state, request_of(options, paths, root), now=now())
    checks = [
        Check("input", "note", f"{note.field}: {note.message}")
        for note in unchecked_inputs(state, reading.loaded)
    ]
    if state is None:
        return [*checks, Check("work", "note", "all of it; loopscope plan -f says more")]
    with state.database.read() as connection:
        foresee = forecaster_of_this_machine  # as plan does: both say the same
        found = planned(connection, state, reading, now=now(), forecaster=foresee)
    todo = found.of("to do", "unknown", "queued", "running")
    if not todo:
        return [*checks, Check("work", "ok", "none: everything is done")]
    seconds = sum(stage.seconds or 0.0 for stage in todo)
    size = sum(stage.bytes or 0 for stage in todo)
    unsure = sum(stage.seconds is None for stage in todo)
    rest = f", and {unsure} of which nothing is known yet" if unsure else ""
    words = f"{len(todo)} stages: about {age(seconds)} and {byte_size(size)} on disk{rest}"
    return [*checks, Check("work", "ok", words)]


def _probe() -> None:
    """Let a process of its own, which may import torch, measure the rates and record them."""
    refuse_without_workers("doctor --probe")
    command = [sys.executable, "-P", "-m", "loopscope.worker.machine_probe"]
    try:
        done = subprocess.run(
            [*command, "--device", _device()],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            f"the probe took longer than {age(PROBE_TIMEOUT_SECONDS)}; run it again when less runs "
            "beside",
            1,
        ) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"the probe ended with status {done.returncode}: {last}", 1)


def _device() -> str:
    return os.environ.get("LOOPSCOPE_DEVICE") or "cpu"


def _machine(state: Path) -> Machine:
    from loopscope.inputs.files import default_cache  # late: help must stay quick

    cache, rates = default_cache(), rates_of_this_machine()
    models, models_bytes = _kept(cache / "loopscope/models")
    dictionaries, dictionaries_bytes = _kept(cache / "loopscope/dictionaries")
    memory = _lines_of(Path("/proc/meminfo"))
    return {
        "processor": _lines_of(Path("/proc/cpuinfo")).get("model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memoryBytes": _kibibytes(memory.get("MemTotal")),
        "memoryFreeBytes": _kibibytes(memory.get("MemAvailable")),
        "device": _device(),
        "flopsPerSecond": rates.flops if rates else None,
        "bytesPerSecond": rates.bandwidth if rates else None,
        "threads": rates.threads if rates else None,
        "probedAt": rates.measured_at if rates else None,
        "state": str(state),
        "stateFreeBytes": _free(state),
        "cache": str(cache / "loopscope"),
        "cacheFreeBytes": _free(cache),
        "models": models,
        "modelsBytes": models_bytes,
        "dictionaries": dictionaries,
        "dictionariesBytes": dictionaries_bytes,
    }


def _lines(found: Machine) -> list[str]:
    memory, free = found["memoryBytes"], found["memoryFreeBytes"]
    kept = (
        f"{found['cache']}: {counted(found['models'], 'model')} "
        f"({byte_size(found['modelsBytes'])}), "
        f"{counted(found['dictionaries'], 'dictionary', 'dictionaries')} "
        f"({byte_size(found['dictionariesBytes'])})"
    )
    rows = {
        "Machine": f"{found['processor'] or 'processor not known'}, {found['cores']} cores",
        "Memory": f"{_size(memory)}, {_size(free)} available",
        "Rates": _rates(found),
        "State": f"{found['state']}, {_size(found['stateFreeBytes'])} free",
        "Cache": f"{kept}, {_size(found['cacheFreeBytes'])} free",
        "A spec": "what it would need: loopscope plan -f SPEC",
    }
    return [f"{name + ':':<{NAME_WIDTH}}{words}" for name, words in rows.items()]


def _rates(found: Machine) -> str:
    flops, moved, at = found["flopsPerSecond"], found["bytesPerSecond"], found["probedAt"]
    if flops is None or moved is None or at is None:
        return "not measured yet; loopscope doctor --probe does, or a worker's first job"
    speed = f"{flops / 1e9:,.0f} GFLOP/s, {moved / 1e9:,.1f} GB/s"
    return (
        f"{speed} ({found['device']}, {found['threads']} threads, {age(max(0.0, now() - at))} ago)"
    )


def _size(number: int | None) -> str:
    return "not known" if number is None else byte_size(number)


def _kept(folder: Path) -> tuple[int, int]:
    """Return how many folders lie in one, and the bytes of their files."""
    if not folder.is_dir():
        return 0, 0
    inside = [one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")]
    files = [file for one in inside for file in one.rglob("*") if file.is_file()]
    return len(inside), sum(file.stat().st_size for file in files)


def _free(path: Path) -> int | None:
    """Return the free bytes where a folder is or would be made."""
    there = next((one for one in (path, *path.absolute().parents) if one.exists()), None)
    return shutil.disk_usage(there).free if there is not None else None


def _lines_of(file: Path) -> dict[str, str]:
    """Return ``name: value`` lines of a file of the system, the first of each name."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _kibibytes(words: str | None) -> int | None:
    number = (words or "").split(" ")[0]
    return 1024 * int(number) if number.isdigit() else None
