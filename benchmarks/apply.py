"""What does it cost to find out that there is nothing to do? Beside snakemake and dvc.

Run with ``.venv/bin/python benchmarks/apply.py [files …]`` (default 1000 10000; minutes). Every
number is a cold process: wall and processor time, the best of some alternating rounds, because the
machine is shared. ``--peers FOLDER`` keeps the scratch environment of the peers.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.many_specs import settle_all, write_specs
from loopscope.controller.runtime import running_controller
from loopscope.controller.settings import Settings
from loopscope.state.db.objects import all_keys as everything
from loopscope.state.folder import open_state
from tests.promises import rows

ROOT = Path(__file__).parents[1]
SNAKEMAKE_TARGETS = 1000
DVC_STAGES = 100
OBJECTS_PER_FILE = 6
"""An experiment and its five stages, each of which is looked at by itself, as a target is."""


def main() -> None:
    """Measure, and print one line a question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="where the peers are (to be) installed")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--resync-files", type=int, default=0, help="measure resyncs up to here")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        peers = {} if options.no_peers else set_up_peers(options.peers or place / "peers", place)
        worlds = {count: set_up_world(place / f"w{count}", count) for count in options.files}
        questions: dict[str, list[str]] = {}
        for count, (state, specs) in worlds.items():
            for command in ("apply", "plan"):
                questions[f"loopscope {command}, {count} files"] = loopscope(state, command, specs)
        questions.update({name: words for name, (words, _) in peers.items()})
        folders = {name: folder for name, (_, folder) in peers.items()}
        found = measure(questions, folders, options.rounds)
        report(found)
        for count, (state, _) in worlds.items():
            if count > options.resync_files:
                continue
            print(f"resync of {resync(state, options.rounds)} ({count} files)", flush=True)


def set_up_world(folder: Path, count: int) -> tuple[Path, Path]:
    """Write, apply and settle ``count`` experiments; return state folder and specs."""
    specs = write_specs(folder, count)
    state = folder / "state"
    time.sleep(2.5)  # files younger than two seconds are not remembered
    began = time.monotonic()
    run(loopscope(state, "apply", specs), None)
    applied = time.monotonic() - began
    objects = settle_all(state, specs)
    print(f"{count} files: first apply {applied:.1f} s, {objects} objects when settled", flush=True)
    return state, specs


def loopscope(state: Path, command: str, specs: Path) -> list[str]:
    """Return the words of a command about a folder of specs."""
    program = [sys.executable, "-m", "loopscope", "--state", str(state)]
    return [*program, command, "-f", str(specs), "--root", str(specs.parent)]


def measure(
    questions: dict[str, list[str]], folders: dict[str, Path], rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the best wall and processor seconds of each, taken in turns."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, words in questions.items():
            wall, cpu = run(words, folders.get(name))
            old = best.get(name, (wall, cpu))
            best[name] = (min(old[0], wall), min(old[1], cpu))
    return best


def run(words: list[str], folder: Path | None) -> tuple[float, float]:
    """Run a cold process; return wall and processor seconds. Raises when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "" if folder else str(ROOT), "DVC_NO_ANALYTICS": "1"},
    )  # fmt: skip
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


def report(found: dict[str, tuple[float, float]]) -> None:
    """Print the times, per object too, and the ratios to the peers."""
    per_object = {name: wall / _objects(name) for name, (wall, _) in found.items()}
    for name, (wall, cpu) in found.items():
        each = per_object[name] * 1000
        print(f"{name:34} wall {wall:6.2f} s  processor {cpu:6.2f} s  {each:7.3f} ms each")
    for ours in (name for name in found if name.startswith("loopscope plan")):
        for peer in (name for name in found if not name.startswith("loopscope")):
            ratio = per_object[peer] / per_object[ours]
            print(f"{peer} / {ours}: {ratio:.1f} times the time per object")
            files = ratio / OBJECTS_PER_FILE
            print(f"{peer} / {ours}: {files:.1f} times the time per file")


def _objects(name: str) -> int:
    """Return how many objects a question is about: targets, stages, or six for each experiment."""
    count = int(name.split(", ")[1].split()[0])
    return count * OBJECTS_PER_FILE if name.startswith("loopscope") else count


def resync(state: Path, rounds: int) -> str:
    """Return how long a controller's resyncs take once all is settled, and what they wrote."""
    folder = open_state(state)
    with running_controller(folder, Settings()) as runtime:
        controller = runtime.controller
        runtime.run_until(lambda: controller.idle)
        times = []
        for _ in range(rounds + 1):
            with folder.database.read() as connection:
                before, objects = rows(connection), len(everything(connection))
            controller._resyncs.next_at = 0.0
            began = time.monotonic()
            controller.step()
            times.append(time.monotonic() - began)
            runtime.run_until(lambda: controller.idle)
            with folder.database.read() as connection:
                if rows(connection) != before:
                    raise SystemExit("a resync of a converged system wrote rows")
    folder.database.close()
    times = times[1:]  # the first reads everything again, because the start wrote rows
    return f"{objects} objects: best {min(times):.2f} s, worst {max(times):.2f} s, 0 rows written"


# -- peers -------------------------------------------------------------------------------


def set_up_peers(folder: Path, place: Path) -> dict[str, tuple[list[str], Path]]:
    """Install snakemake and dvc and give each something done; return their no-op commands."""
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            venv.create(folder, with_pip=True)
        for peer in ("snakemake", "dvc"):
            if not (folder / "bin" / peer).exists():
                subprocess.run([python, "-m", "pip", "install", "-q", peer], check=True)
        return {
            **write_snakemake(folder / "bin" / "snakemake", place / "snakemake"),
            **write_dvc(folder / "bin" / "dvc", place / "dvc"),
        }
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no peers: {error}")
        return {}


def write_snakemake(program: Path, folder: Path) -> dict[str, tuple[list[str], Path]]:
    """Make a thousand targets, all done."""
    (folder / "in").mkdir(parents=True)
    for number in range(SNAKEMAKE_TARGETS):
        (folder / "in" / f"{number}.txt").write_text(f"{number}\n")
    (folder / "Snakefile").write_text(
        f"rule all:\n    input: expand('out/{{n}}.txt', n=range({SNAKEMAKE_TARGETS}))\n"
        "rule copy:\n    input: 'in/{n}.txt'\n    output: 'out/{n}.txt'\n"
        "    run:\n        import shutil; shutil.copy(input[0], output[0])\n"
    )
    (folder / "out").mkdir()
    for number in range(SNAKEMAKE_TARGETS):
        (folder / "out" / f"{number}.txt").write_text(f"{number}\n")
    subprocess.run(
        [program, "--touch", "-c1", "-q", "all"], cwd=folder, check=True, capture_output=True
    )
    return {f"snakemake -n, {SNAKEMAKE_TARGETS} targets": ([str(program), "-n", "-q"], folder)}


def write_dvc(program: Path, folder: Path) -> dict[str, tuple[list[str], Path]]:
    """Make a hundred stages, all done."""
    folder.mkdir()
    stages = []
    for number in range(DVC_STAGES):
        (folder / f"in{number}.txt").write_text(f"{number}\n")
        (folder / f"out{number}.txt").write_text(f"{number}\n")
        stages.append(
            f"  s{number}:\n    cmd: cp in{number}.txt out{number}.txt\n"
            f"    deps: [in{number}.txt]\n    outs: [out{number}.txt]\n"
        )
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    subprocess.run([program, "init", "--no-scm", "-q"], cwd=folder, check=True)
    subprocess.run([program, "commit", "-f", "-q"], cwd=folder, check=True)
    return {f"dvc status, {DVC_STAGES} stages": ([str(program), "status", "-q"], folder)}


if __name__ == "__main__":
    main()
