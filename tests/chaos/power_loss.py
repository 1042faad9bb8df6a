"""The demo losing power 20 times: ``python -m tests.chaos.power_loss``.

Runs an experiment once undisturbed and writes down when it was where (stage, phase, how much of
it). Then runs it again in an empty state folder, with an empty model cache, and cuts the power at
random moments of that timeline, one in each of as many equal parts: the whole tree of processes
is frozen and then killed, so nobody sees anybody else die. After each pull the same command is
given again. Moments are places in the *work*, not on the clock: starting again and loading the
model take time in which there is nothing to lose, and they would draw most of the kills.

What is checked at the end: every artifact's content digest and the report page (without its
dates and durations, and the digests of the manifests that hold them) are those of the undisturbed
run; no shard that was sealed before a pull was made again after it. A worker works on one shard at
a time, so a pull costs at most the one shard that was under way (or, where a stage seals none,
that stage).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import psutil
import yaml

from tests.chaos.fork_server import REPOSITORY
from tests.chaos.verdict import corrupt_artifacts, leftovers, payloads

POLL_SECONDS = 0.02
JITTER_SECONDS_MAX = 1.0
PATIENCE_SECONDS = 3 * 3600.0

Place = tuple[str, str, int]
"""A place in the work: digest of the job, phase, units done."""


@dataclass
class Timeline:
    """When the undisturbed run was where: seconds since its first sign of work."""

    seconds_by_place: dict[Place, float] = field(default_factory=dict)

    def note(self, place: Place, seconds: float) -> None:
        self.seconds_by_place.setdefault(place, seconds)

    @property
    def length_seconds(self) -> float:
        return max(self.seconds_by_place.values(), default=0.0)

    def position(self, place: Place) -> float:
        """Return when the undisturbed run had got as far as ``place``; 0 if it never was there."""
        digest, phase, done = place
        return max(
            (
                seconds
                for (d, p, n), seconds in self.seconds_by_place.items()
                if (d, p) == (digest, phase) and n <= done
            ),
            default=0.0,
        )


@dataclass
class Home:
    """One state folder with its own model cache, and the command that works on it."""

    specs: Path
    root: Path
    state: Path

    @property
    def arrivals(self) -> Path:
        return self.state.with_name(f"{self.state.name}.arrivals")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "LOOPSCOPE_CACHE": str(self.state.with_name(f"{self.state.name}.cache")),
            "LOOPSCOPE_FAILPOINT_LOG": str(self.arrivals),
        }
        with self.state.with_name(f"{self.state.name}.output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "loopscope", "--state", str(self.state), *words],
                cwd=REPOSITORY,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def run(self) -> subprocess.Popen[bytes]:
        return self.start("run", str(self.specs), "--root", str(self.root))

    def place(self, since: float) -> Place | None:
        """Return where the running job is, if its worker said so after ``since``."""
        query = (
            "select digest, phase, done, updated_at from progress "
            "join jobs on jobs.id = progress.job_id where jobs.state = 'running'"
        )
        try:
            with contextlib.closing(self._open()) as connection:
                row = connection.execute(query).fetchone()
        except sqlite3.OperationalError:
            return None  # there is no database yet
        return (row[0], row[1], row[2]) if row and row[3] > since else None

    def sealed(self) -> dict[str, int]:
        """Return the shards that are sealed now, with the moment of their seal (ns)."""
        found = {}
        for seal in (self.state / "artifacts" / ".work").glob("*/*.seal.json"):
            with contextlib.suppress(FileNotFoundError):
                found[f"{seal.parent.name}/{seal.name}"] = seal.stat().st_mtime_ns
        return found

    def stages(self) -> dict[str, str]:
        """Return the stage of each job's digest."""
        with contextlib.closing(self._open()) as connection:
            return dict(connection.execute("select digest, stage from jobs"))

    def page(self, name: str) -> str:
        """Return the report page without what differs each time: dates, durations, their seals."""
        path = self.state.with_name(f"{self.state.name}.html")
        assert self.start("report", name, "-o", str(path)).wait() == 0
        text = path.read_text()
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "(date)", text)
        text = re.sub(r"(manifestDigest\W.{1,40}?)[0-9a-f]{64}", r"\1(seal)", text)
        return re.sub(r"(seconds\D{1,40}?)[\d.]+", r"\1(duration)", text)

    def arrivals_of(self, name: str) -> int:
        lines = self.arrivals.read_text().splitlines() if self.arrivals.exists() else []
        return Counter(line.partition(" ")[2] for line in lines)[name]

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.state}/state.db?mode=ro", uri=True)


@dataclass
class Findings:
    """What came of it; ``violations`` says in words what must not be."""

    seed: int
    pulls: list[str]
    """Each as stage, phase and how far it was."""
    undisturbed_seconds: float
    disturbed_seconds: float
    artifacts: int
    shards_needed: int
    shards_sealed: int
    shards_made_again: int
    violations: list[str]

    def __str__(self) -> str:
        stages = Counter(pull.split(" ")[0] for pull in self.pulls)
        line = (
            f"seed {self.seed}: the power was cut {len(self.pulls)} times "
            f"({', '.join(f'{stage} {count}' for stage, count in stages.items())}); "
            f"{self.artifacts} artifacts, {self.shards_needed} shards needed, "
            f"{self.shards_sealed} sealed, {self.shards_made_again} sealed shards made again; "
            f"{self.undisturbed_seconds:.0f} s undisturbed, {self.disturbed_seconds:.0f} s with it"
        )
        return "\n".join([line, *(f"VIOLATION: {words}" for words in self.violations)])


def cut_the_power(specs: Path, root: Path, folder: Path, pulls: int, seed: int) -> Findings:
    """Run the specs undisturbed, then with so many pulls; return how they compare."""
    calm = Home(specs, root, folder / "undisturbed")
    hurt = Home(specs, root, folder / "disturbed")
    started_at = time.time()
    timeline = _watch_undisturbed(calm)
    undisturbed_seconds = time.time() - started_at
    random = Random(seed)
    part = timeline.length_seconds / pulls
    moments = [(number + random.random()) * part for number in range(pulls)]
    violations: list[str] = []
    pulled: list[str] = []
    again = 0
    sealed: dict[str, int] = {}
    started_at = time.time()
    for moment in moments:
        place = _run_until(hurt, timeline, moment, random.uniform(0.0, JITTER_SECONDS_MAX))
        found = hurt.sealed()
        again += sum(found.get(name, at) != at for name, at in sealed.items())
        sealed = found
        if place is None:
            break  # it was done before this moment came
        stage = hurt.stages().get(place[0], "?")
        pulled.append(f"{stage} {place[1]} {place[2]} (moment {moment:.1f} s)")
    code = hurt.run().wait(PATIENCE_SECONDS)
    code = code or hurt.run().wait(PATIENCE_SECONDS)  # tidies up after who died while publishing
    violations += [f"the last run ended with {code}"] if code != 0 else []
    violations += _differences(calm, hurt)
    violations += [f"{again} sealed shards were made again"] if again else []
    if len(pulled) < pulls:
        violations.append(f"only {len(pulled)} of {pulls} pulls: it was done before")
    made, needed = hurt.arrivals_of("shard-sealed"), calm.arrivals_of("shard-sealed")
    if made > needed:
        violations.append(f"{made} shards were sealed where {needed} are needed")
    return Findings(
        seed=seed,
        pulls=pulled,
        undisturbed_seconds=round(undisturbed_seconds, 1),
        disturbed_seconds=round(time.time() - started_at, 1),
        artifacts=len(payloads(hurt.state)),
        shards_needed=needed,
        shards_sealed=made,
        shards_made_again=again,
        violations=violations,
    )


def _watch_undisturbed(home: Home) -> Timeline:
    timeline, first = Timeline(), None
    started_at = time.time()
    process = home.run()
    while process.poll() is None:
        place = home.place(started_at)
        if place is not None:
            first = first or time.monotonic()
            timeline.note(place, time.monotonic() - first)
        time.sleep(POLL_SECONDS)
    assert process.returncode == 0, home.state.with_name("undisturbed.output").read_text()
    return timeline


def _run_until(home: Home, timeline: Timeline, moment: float, jitter: float) -> Place | None:
    """Run until the work is where the undisturbed run was at ``moment``; then cut the power.

    Returns where it was, None when it ended before.
    """
    started_at = time.time()
    process = home.run()
    while process.poll() is None:
        place = home.place(started_at)
        if place is not None and timeline.position(place) >= moment:
            time.sleep(jitter)
            last = home.place(started_at) or place
            _freeze_and_kill(process)
            return last
        time.sleep(POLL_SECONDS)
    return None


def _freeze_and_kill(process: subprocess.Popen[bytes]) -> None:
    """End a tree of processes as a power cut does: nobody gets to see another one die.

    Workers have sessions of their own, so the tree is walked; frozen processes start no others.
    """
    frozen: set[psutil.Process] = set()
    while True:
        root = psutil.Process(process.pid)
        new = {root, *root.children(recursive=True)} - frozen
        if not new:
            break
        for each in new:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGSTOP)
        frozen |= new
    for each in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(list(frozen), timeout=60)


def _differences(calm: Home, hurt: Home) -> list[str]:
    expected, found = payloads(calm.state), payloads(hurt.state)
    changed = [d for d in expected if found.get(d, expected[d]) != expected[d]]
    names = [_name(path) for path in calm.specs.glob("*.yaml")]
    return [
        *(f"artifact {d[:12]} is missing" for d in expected if d not in found),
        *(f"artifact {d[:12]} differs" for d in changed),
        *(f"artifact {d[:12]} was not expected" for d in found if d not in expected),
        *(f"the report of {name} differs" for name in names if calm.page(name) != hurt.page(name)),
        *(f"corrupt: {path}" for path in corrupt_artifacts(hurt.state)),
        *(f"left over: {path}" for path in leftovers(hurt.state, set(found))),
    ]


def _name(spec: Path) -> str:
    return str(yaml.safe_load(spec.read_text())["metadata"]["name"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pulls", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--report", type=Path, default=Path("build/power-loss.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="loopscope-power-loss-"))
    sys.stdout.write(f"power loss with seed {arguments.seed} in {folder}\n")
    sys.stdout.flush()
    examples = shutil.copytree(REPOSITORY / "examples", folder / "examples")
    findings = cut_the_power(examples / "france", examples, folder, arguments.pulls, arguments.seed)
    arguments.report.parent.mkdir(parents=True, exist_ok=True)
    arguments.report.write_text(json.dumps(asdict(findings), indent=1) + "\n")
    sys.stdout.write(f"{findings}\nreport: {arguments.report}\nkept: {folder}\n")
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
