"""Counted kills on PostgreSQL, a bucket and Ray: ``python -m tests.chaos.cluster_kills``.

A round makes three tiny experiments again from their captures on while, at random moments, workers,
connections of the server, requests to the bucket, raylets and whole nodes are killed. A connection
or a request counts when it was hit while a job ran; a worker, a raylet or a node when a job lost
its worker by it. Then all must be Ready by itself, with the bytes of a run on disk, nothing done
twice, no sealed shard made again, and nothing for ``fsck`` to find. Each round is a line of the
record; the same command goes on until every kind of kill has its number, or the time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
from sqlalchemy import select

from loopscope.state.artifacts.bucket import keys
from loopscope.state.db import tables
from loopscope.state.failures import PASSING
from tests.chaos.cluster_world import World, say, standing
from tests.chaos.fork_server import REPOSITORY
from tests.s3_proxy import Done

GOALS = {"worker": 400, "connection": 150, "request": 150, "raylet": 200, "node": 100}
EVERY_SECONDS = (0.1, 1.5)
BEGIN = "<!-- kills: written by `make chaos-cluster CLUSTER_KILLS=--publish`, not by hand -->"
END = "<!-- kills: end -->"


@dataclass
class Round:
    """What was killed in a round, and what came of it."""

    seed: int
    commit: str
    kills: Counter[str] = field(default_factory=Counter)
    of: Counter[str] = field(default_factory=Counter)
    """Connections by what they did, requests by how they died."""
    noticed_seconds: dict[str, list[float]] = field(default_factory=dict)
    """How long it took each time until the job of a killed worker, raylet or node was lost."""
    given_up: int = 0
    """Nodes that Ray took for dead by itself."""
    missed: int = 0
    """Blows that hit nobody at work, which count nowhere."""
    seconds: float = 0.0
    load: float = 0.0
    settled: bool = False
    jobs: int = 0
    starts: int = 0
    differing: int = 0
    """Artifacts with other bytes than on disk."""
    missing: int = 0
    doubled: int = 0
    """Actions for which more than one job succeeded."""
    sealed_again: int = 0
    """Shards that were made again by a job that began after they had been sealed."""
    findings: list[str] = field(default_factory=list)
    """Of ``fsck``."""

    def line(self) -> str:
        """Return the round as a line of the record."""
        return json.dumps({**vars(self), "kills": dict(self.kills), "of": dict(self.of)}) + "\n"

    @property
    def broken(self) -> int:
        """How many promises were not kept."""
        wrong = self.differing + self.missing + self.doubled + self.sealed_again
        return wrong + len(self.findings) + (not self.settled)


def play(
    world: World, round_: Round, left: Counter[str], reference: dict[str, str], until: float
) -> None:
    """Make everything again, kill meanwhile what is still to be killed, and judge."""
    began, done_before = time.monotonic(), len(world.proxy.done)
    last = max((job.id for job in world.jobs()), default=0)
    world.begin_again()
    while time.monotonic() < until and not world.is_settled():
        world.keep_a_controller()
        world.keep_the_nodes()
        wanted = +(left - round_.kills)
        if not wanted:
            break
        time.sleep(world.random.uniform(*EVERY_SECONDS))
        kind = world.random.choices(list(wanted), list(wanted.values()))[0]
        _strike(world, round_, kind)
    round_.settled = world.wait_until_settled(f"round {round_.seed} to settle")
    world.rest()
    round_.given_up, world.given_up = world.given_up, 0
    _judge(world, round_, reference, last, world.proxy.done[done_before:])
    round_.seconds = round(time.monotonic() - began, 1)
    round_.load = round(os.getloadavg()[0], 1)


def _strike(world: World, round_: Round, kind: str) -> None:
    try:
        blow = world.kill(kind)
    except (psutil.Error, StopIteration, *PASSING):
        blow = None  # the victim was gone already
    if blow is None:
        round_.missed += 1
        return
    round_.kills[kind] += 1
    if blow.noticed_seconds is None:
        round_.of[f"{kind}: {blow.of}"] += 1
    else:
        round_.noticed_seconds.setdefault(kind, []).append(blow.noticed_seconds)


def _judge(
    world: World, round_: Round, reference: dict[str, str], last: int, requests: list[Done]
) -> None:
    found = world.contents()
    done = {job.id: job for job in world.jobs() if job.id > last}
    succeeded = Counter(job.digest for job in done.values() if job.state == "succeeded")
    starts = tables.job_starts.c
    with world.state.database.read() as connection:
        rows = connection.execute(select(starts.job_id, starts.started_at)).all()
    begun = [(done[number].digest, at) for number, at in rows if number in done]
    round_.jobs, round_.starts = len(done), len(begun)
    round_.missing = len(reference.keys() - found.keys())
    round_.differing = sum(found.get(one, content) != content for one, content in reference.items())
    round_.doubled = sum(number - 1 for number in succeeded.values())
    round_.sealed_again = sealed_again(requests, begun)
    round_.findings = world.findings() if round_.settled else []


def sealed_again(requests: list[Done], begun: list[tuple[str, float]]) -> int:
    """Return how many shards were uploaded by a job that began after they had been sealed.

    Two workers of one job may seal the same shard when the first lives on for a moment; that the
    second began before is what tells them apart. ``begun`` has digest and time of each start.
    """
    sealed: dict[tuple[str, str], float] = {}
    again = 0
    for one in requests:
        _, is_shard, name = one.path.partition(f"/{keys.SHARDS}/")
        if one.method != "PUT" or not is_shard or f"/{keys.TRASH}/" in one.path:
            continue
        digest, shard = name.split("?")[0].split("/")[:2]
        first = sealed.setdefault((digest, shard), one.at)
        start = max((at for of, at in begun if of == digest and at < one.at), default=0.0)
        again += first < start
    return again


def recorded(path: Path) -> list[Round]:
    """Return the rounds of earlier calls."""
    lines = path.read_text().splitlines() if path.exists() else []
    said = map(json.loads, lines)
    return [Round(**{**s, "kills": Counter(s["kills"]), "of": Counter(s["of"])}) for s in said]


def table(rounds: list[Round]) -> str:
    """Return what is published: kills by kind, how soon they were noticed, broken promises."""
    kills = sum((one.kills for one in rounds), Counter())
    lines = ["| killed | counted | of | its job was taken back after (median, 95 %, most) |",
             "|---|---|---|---|"]  # fmt: skip
    for kind, goal in GOALS.items():
        seconds = sorted(s for one in rounds for s in one.noticed_seconds.get(kind, []))
        noticed = (
            f"{statistics.median(seconds):.1f}, {seconds[int(0.95 * (len(seconds) - 1))]:.1f}, "
            f"{seconds[-1]:.1f} s"
            if seconds
            else ""
        )
        lines.append(f"| {kind} | {kills[kind]} | {goal} | {noticed} |")
    lines.append(f"| all | {kills.total()} | {sum(GOALS.values())} | |")
    return "\n".join(lines) + "\n"


def by_commit(rounds: list[Round]) -> str:
    """Return which kills were made at which commit, in the order in which they were."""
    head = ["commit", "rounds", *GOALS, "all", "promises broken", "load"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for commit in dict.fromkeys(one.commit for one in rounds):
        own = [one for one in rounds if one.commit == commit]
        kills = sum((one.kills for one in own), Counter())
        numbers = [len(own), *(kills[kind] for kind in GOALS), kills.total()]
        said = [commit, *numbers, sum(one.broken for one in own), _loads(own)]
        lines.append("| " + " | ".join(map(str, said)) + " |")
    return "\n".join(lines) + "\n"


def _loads(rounds: list[Round]) -> str:
    loads = [one.load for one in rounds]
    return f"{min(loads):.0f} to {max(loads):.0f}" if loads else "unknown"


def sentence(rounds: list[Round]) -> str:
    """Return what came of all of it."""
    said = totals(rounds)
    return (
        "{rounds} rounds, {jobs} jobs, {starts} starts of a job, load {load}. "
        "Not settled: {notSettled}; missing artifacts: {missing}; "
        "with other bytes: {differing}; done twice: {doubled}; "
        "sealed shards made again: {sealedAgain}; findings of `fsck`: {findings}."
    ).format(**said)


def published(page: str, rounds: list[Round]) -> str:
    """Return a page with the tables and what came of it in its section. Raises ValueError."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no section between {BEGIN} and {END}")
    said = f"{table(rounds)}\n{sentence(rounds)}\n\n{by_commit(rounds)}"
    return f"{before}{BEGIN}\n{said}{END}{after}"


def totals(rounds: list[Round]) -> dict[str, object]:
    """Return the sums over all rounds."""
    seconds = [one.seconds for one in rounds]
    return {
        "rounds": len(rounds),
        "kills": sum((one.kills for one in rounds), Counter()).total(),
        "of": dict(sum((one.of for one in rounds), Counter())),
        "nodesGivenUp": sum(one.given_up for one in rounds),
        "missed": sum(one.missed for one in rounds),
        "jobs": sum(one.jobs for one in rounds),
        "starts": sum(one.starts for one in rounds),
        "notSettled": sum(not one.settled for one in rounds),
        "missing": sum(one.missing for one in rounds),
        "differing": sum(one.differing for one in rounds),
        "doubled": sum(one.doubled for one in rounds),
        "sealedAgain": sum(one.sealed_again for one in rounds),
        "findings": sum(len(one.findings) for one in rounds),
        "secondsOfARound": statistics.median(seconds) if seconds else None,
        "load": _loads(rounds),
        "commits": sorted({one.commit for one in rounds}),
    }


def go_on(record: Path, goals: Counter[str], until: float) -> list[Round]:
    """Play rounds until all is reached, the time is over, or a promise was broken."""
    rounds = recorded(record)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.check_output(command, cwd=REPOSITORY, text=True).strip()
    if not goals - sum((one.kills for one in rounds), Counter()):
        return rounds
    with (
        tempfile.TemporaryDirectory(prefix="loopscope-kills-") as folder,
        standing(Path(folder), Random(len(rounds))) as (world, reference),
    ):
        while time.monotonic() < until:
            left = goals - sum((one.kills for one in rounds), Counter())
            if not left:
                break
            one = Round(len(rounds), commit)
            play(world, one, left, reference, until)
            rounds.append(one)
            with record.open("a") as file:
                file.write(one.line())
            say(one.line().rstrip())
            if one.broken:
                say(world.log())
                break
    return rounds


def main() -> int:
    """Go on with the record, print its table; 1 where a promise was broken."""
    reader = argparse.ArgumentParser(description=__doc__)
    for kind, number in GOALS.items():
        reader.add_argument(f"--{kind}s", dest=kind, type=int, default=number)
    reader.add_argument("--minutes", type=float, default=24 * 60.0)
    reader.add_argument("--record", type=Path, default=Path("build/cluster-kills.jsonl"))
    page = REPOSITORY / "docs/reliability.md"
    reader.add_argument(
        "--publish", type=Path, nargs="?", const=page, help="write its table there, kill nothing"
    )
    given = reader.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers end with their contexts
    given.record.parent.mkdir(parents=True, exist_ok=True)
    goals = Counter({kind: getattr(given, kind) for kind in GOALS})
    if given.publish:
        rounds = recorded(given.record)
        given.publish.write_text(published(given.publish.read_text(), rounds))
    else:
        rounds = go_on(given.record, goals, time.monotonic() + 60 * given.minutes)
    sys.stdout.write(f"{table(rounds)}\n{sentence(rounds)}\n{json.dumps(totals(rounds))}\n")
    return 1 if any(one.broken for one in rounds) else 0


if __name__ == "__main__":
    raise SystemExit(main())
