"""What the chaos left behind, held against a fault-free run of the same specs."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from loopscope.state.files import file_sha256
from tests.chaos.bench import VARIANTS, Bench, write
from tests.chaos.fork_server import REPOSITORY, SOCKET_VARIABLE, ForkServer
from tests.chaos.processes import outlived_seconds
from tests.integration.real import settled_rows

ORPHAN_GRACE_SECONDS = 10.0
"""What is promised."""
ORPHAN_SLACK_SECONDS = 20.0
"""What a crowded machine may add to it before a late worker counts as an orphan."""


@dataclass
class Tally:
    """What the driver did and saw."""

    kills: Counter[str] = field(default_factory=Counter)
    """Counted kills by the role of the victim."""
    stops: int = 0
    retried_by_hand: int = 0
    settle_seconds: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """The figures, and every broken promise in words."""

    seed: int
    commit: str
    seconds: float
    kills: dict[str, int]
    kills_at_failpoints: dict[str, int]
    stops: int
    processes: int
    jobs: int
    jobs_retried_by_hand: int
    lost: int
    doubled: int
    orphans: int
    corrupt: int
    differing: int
    restarts: int
    settle_seconds_median: float
    settle_seconds_max: float
    outlived_seconds_max: float
    violations: list[str]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def __str__(self) -> str:
        by_victim = ", ".join(f"{role} {count}" for role, count in sorted(self.kills.items()))
        line = (
            f"seed {self.seed}: {sum(self.kills.values())} kills ({by_victim}; "
            f"{sum(self.kills_at_failpoints.values())} of them at failpoints), {self.stops} stops, "
            f"{self.processes} processes, {self.jobs} jobs, {self.lost} lost, "
            f"{self.doubled} doubled, {self.orphans} orphaned processes, "
            f"{self.corrupt} corrupt artifacts, {self.differing} differing payloads; settled "
            f"{self.settle_seconds_median:.1f} s after a restart (median of {self.restarts}), "
            f"{self.settle_seconds_max:.1f} s at most; {self.seconds:.0f} s in all"
        )
        return "\n".join([line, *(f"VIOLATION: {words}" for words in self.violations)])


def reference_payloads(
    folder: Path, server: ForkServer, variants: Iterable[str] = tuple(VARIANTS)
) -> dict[str, str]:
    """Return the content digest of every artifact that the variants need, made without faults."""
    bench = Bench.at(folder, server, "undisturbed")
    for variant in variants:
        write(bench.place, variant)
        code, output = bench.call(*bench.run_words())
        assert code == 0, output
    write(bench.place, "as it was")
    return payloads(bench.state)


def payloads(state: Path) -> dict[str, str]:
    """Return the content digest of every published artifact, by action digest."""
    manifests = (state / "artifacts").glob("[a-z]*/*/manifest.json")
    return {path.parent.name: json.loads(path.read_text())["contentDigest"] for path in manifests}


def judge(
    bench: Bench, tally: Tally, expected: dict[str, str], seed: int, seconds: float
) -> Verdict:
    """Look at everything that is left and count what is wrong."""
    at_failpoints: Counter[str] = Counter()
    for process in bench.processes.every:
        if process.killed_itself:
            tally.kills[process.role] += 1
            at_failpoints[process.reached[-1]] += 1
    restless = _restless(bench)
    found = payloads(bench.state)
    lost, doubled = _lost_jobs(bench), _doubled_jobs(bench)
    corrupt = corrupt_artifacts(bench.state)
    orphans = _orphans(bench)
    differing = sorted(d for d in found if found[d] != expected.get(d))
    violations = [
        *tally.violations,
        *(f"lost: {words}" for words in lost),
        *(f"doubled: {words}" for words in doubled),
        *(f"orphaned: {words}" for words in orphans),
        *(f"corrupt: {words}" for words in corrupt),
        *(f"payload differs from the fault-free run: {digest}" for digest in differing),
        *(f"left over: {words}" for words in leftovers(bench.state, set(found))),
        *restless,
        *_database_trouble(bench),
        *_log_trouble(bench),
    ]
    outlived = outlived_seconds(bench.processes, time.time())
    return Verdict(
        seed=seed,
        commit=_commit(),
        seconds=round(seconds, 1),
        kills=dict(tally.kills),
        kills_at_failpoints=dict(at_failpoints),
        stops=tally.stops,
        processes=len(bench.processes.every),
        jobs=len(bench.rows("select id from jobs")),
        jobs_retried_by_hand=tally.retried_by_hand,
        lost=len(lost),
        doubled=len(doubled),
        orphans=len(orphans),
        corrupt=len(corrupt),
        differing=len(differing),
        restarts=len(tally.settle_seconds),
        settle_seconds_median=round(statistics.median(tally.settle_seconds or [0.0]), 2),
        settle_seconds_max=round(max(tally.settle_seconds, default=0.0), 2),
        outlived_seconds_max=round(max(outlived.values(), default=0.0), 2),
        violations=violations,
    )


def _lost_jobs(bench: Bench) -> list[str]:
    """Jobs that vanished or never ended, and objects without what they want."""
    rows = bench.rows("select id, state from jobs order by id")
    gaps = set(range(1, len(rows) + 1)) ^ {number for number, _ in rows}
    unended = [f"job {n} is {s}" for n, s in rows if s in ("pending", "running")]
    published = payloads(bench.state)
    unready = [
        f"{record.key} is not Ready or its artifact is missing"
        for record in bench.objects()
        if not record.ready or (record.wanted_digest and record.wanted_digest not in published)
    ]
    return [*(f"job {number} has no row" for number in sorted(gaps)), *unended, *unready]


def _doubled_jobs(bench: Bench) -> list[str]:
    """Work that was finished twice: artifacts were never damaged, so once is enough."""
    query = (
        "select stage, digest, count(*) from jobs where state = 'succeeded' "
        "group by stage, digest having count(*) > 1"
    )
    return [f"{stage} {digest[:12]} succeeded {n} times" for stage, digest, n in bench.rows(query)]


def corrupt_artifacts(state: Path) -> list[str]:
    """Return each payload file that is not what its manifest says."""
    wrong = []
    for manifest in (state / "artifacts").glob("[a-z]*/*/manifest.json"):
        files: dict[str, Any] = json.loads(manifest.read_text())["files"]
        present = {p.relative_to(manifest.parent).as_posix() for p in manifest.parent.rglob("*")}
        wrong += [f"{manifest.parent}/{n}" for n in present - set(files) - {manifest.name}]
        for name, entry in files.items():
            path = manifest.parent / name
            if not path.is_file() or file_sha256(path) != entry["sha256"]:
                wrong.append(str(path))
    quarantined = (state / "artifacts" / ".quarantine").glob("*/*")
    return [*wrong, *(f"{path} was set aside" for path in quarantined)]


def leftovers(state: Path, published: set[str]) -> list[str]:
    """Return what attempts left behind although their artifact is published."""
    staging = list((state / "artifacts" / ".staging").glob("*"))
    work = [p for p in (state / "artifacts" / ".work").glob("*") if p.name in published]
    return [str(path) for path in (*staging, *work)]


def _orphans(bench: Bench) -> list[str]:
    limit = ORPHAN_GRACE_SECONDS + ORPHAN_SLACK_SECONDS
    late = outlived_seconds(bench.processes, time.time())
    return [
        f"worker {pid} outlived its controller by {seconds:.1f} s"
        for pid, seconds in late.items()
        if seconds > limit
    ] + [f"{words} still runs" for words in _still_running(bench)]


def _still_running(bench: Bench) -> list[str]:
    """Return what runs of what was forked, and of what those started in their turn."""
    own = [f"{process.role} {process.pid}" for process in bench.processes.alive()]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(SOCKET_VARIABLE) == bench.server.socket_path:
                own.append(" ".join(process.cmdline()))
    return own


def _restless(bench: Bench) -> list[str]:
    """Run once more: what is settled stays so, without a job and without a row."""
    code, output = bench.call(*bench.run_words())
    before = settled_rows(bench.state)
    code, output = bench.call(*bench.run_words())
    after = settled_rows(bench.state)
    return [
        *([f"a run on what is settled ended with {code}: {output[-500:]}"] if code else []),
        *(f"a run on what is settled wrote into {t}" for t in before if before[t] != after[t]),
    ]


def _database_trouble(bench: Bench) -> list[str]:
    answer = bench.rows("pragma integrity_check")
    return [] if answer == [("ok",)] else [f"the database is damaged: {answer[:3]}"]


def _log_trouble(bench: Bench) -> list[str]:
    """Tracebacks and locked databases in any log: nobody should ever see one."""
    troubles = []
    logs = [*bench.state.parent.glob("*.log"), *(bench.state / "logs").glob("*.log")]
    for path in logs:
        text = path.read_text(errors="replace")
        for word in ("Traceback", "database is locked", "reconcile failed"):
            if word in text:
                place = text.index(word)
                troubles.append(f"{path.name} says: {text[max(0, place - 300) : place + 1500]}")
    return troubles


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return answer.stdout.strip() or "unknown"
