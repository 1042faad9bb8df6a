"""Counted kills on PostgreSQL, a bucket and Ray: ``python -m tests.chaos.cluster_kills``.

One state on a server, its artifacts in a bucket, one controller whose workers are on the nodes of a
Ray cluster of this machine. A round makes a tiny experiment again from its capture on, while, some
seconds apart, workers, connections of the server, requests to the bucket, raylets and whole nodes
are killed. A kill counts when its victim was at work. Then all must be Ready by itself, with the
bytes of a run on disk. Each round is a line of the record; the same command goes on until every
kind of kill has its number, or the time is over.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg

from loopscope.controller.maintenance.rerunning import rerun_stages
from loopscope.specs.keys import Key
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.bucket import keys
from loopscope.state.db import jobs, objects
from loopscope.state.failures import PASSING
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from loopscope.views.settled import family, is_settled
from tests.integration.real import Place
from tests.postgres_server import PostgresServer
from tests.postgres_server import running_server as running_postgres
from tests.ray_cluster import Nodes, running_cluster, workers_in
from tests.s3_proxy import Fault, Proxy, proxied
from tests.s3_servers import KEYS, S3Server
from tests.s3_servers import running_server as running_bucket

GOALS = {"worker": 400, "connection": 150, "request": 150, "raylet": 200, "node": 100}
EXPERIMENT = Key("Experiment", "default", "tiny")
EVERY_SECONDS = (1.0, 6.0)
PATIENCE_SECONDS = 1_200.0
"""How long a round may take to settle after the last kill."""


@dataclass
class Round:
    """What was killed in a round, and what came of it."""

    seed: int
    commit: str
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    settled: bool = False
    jobs: int = 0
    starts: int = 0
    differing: int = 0
    """Artifacts with other bytes than on disk."""
    missing: int = 0
    doubled: int = 0
    """Actions for which more than one job succeeded."""
    sealed_again: int = 0
    """Shards that the bucket took more than once."""

    def line(self) -> str:
        """Return the round as a line of the record."""
        return json.dumps({**vars(self), "kills": dict(self.kills)}) + "\n"

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return self.settled and not (self.differing or self.missing or self.doubled)


@dataclass
class Stand:
    """Servers, cluster and controller, and what is done to them."""

    place: Place
    postgres: PostgresServer
    bucket: S3Server
    proxy: Proxy
    nodes: Nodes
    state: StateFolder
    random: Random
    controller: subprocess.Popen[str] | None = None
    _strikes: int = 0

    def __post_init__(self) -> None:
        self.proxy.choose = self._choose

    # -- what goes on ---------------------------------------------------------------------------

    def keep_a_controller(self) -> None:
        """Start the controller, or one in place of a controller that ended."""
        if self.controller is None or self.controller.poll() is not None:
            words = ("--executor", "ray", "--ray-address", self.nodes.address, "--slots", "2")
            self.controller = self.place.start("controller", *words)

    def at_work(self) -> list[psutil.Process]:
        """Return the workers, if a job runs."""
        with self.state.database.read() as connection:
            running = jobs.running(connection)
        return workers_in(self.place.state) if running else []

    def is_settled(self) -> bool:
        """Whether nothing is left to wait for."""
        with self.state.database.read() as connection:
            return is_settled(connection, family(connection, [EXPERIMENT]))

    def contents(self) -> dict[str, str]:
        """Return the content digest of each artifact that the database knows."""
        with self.state.database.read() as connection:
            return {one.digest: one.content_digest for one in artifact_index.listed(connection)}

    def begin_again(self) -> None:
        """Ask for all of the experiment once more, from its capture on."""
        with self.state.database.write() as connection:
            experiment = objects.get(connection, EXPERIMENT)
            assert experiment is not None
            rerun_stages(connection, self.state.artifacts, experiment, "capture", now=time.time())

    # -- what is killed -------------------------------------------------------------------------

    def kill(self, kind: str) -> bool:
        """Kill one of a kind; return whether it was at work."""
        ways: dict[str, Callable[[psutil.Process], bool]] = {
            "worker": self._kill_worker,
            "connection": self._cut_a_connection,
            "request": self._strike_a_request,
            "raylet": self._kill_raylet,
            "node": self._kill_node,
        }
        victims = self.at_work()
        return bool(victims) and ways[kind](self.random.choice(victims))

    def _kill_worker(self, worker: psutil.Process) -> bool:
        worker.kill()
        return True

    def _cut_a_connection(self, _worker: psutil.Process) -> bool:
        query = (
            "select pg_terminate_backend(pid) from (select pid from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid() "
            "order by random() limit 1) one"
        )
        with psycopg.connect(self.postgres.conninfo("d1"), autocommit=True) as connection:
            return connection.execute(query).fetchone() is not None

    def _strike_a_request(self, _worker: psutil.Process) -> bool:
        before = sum(self.proxy.struck.values())
        self._strikes = 1
        until = time.monotonic() + 5.0
        while time.monotonic() < until and sum(self.proxy.struck.values()) == before:
            time.sleep(0.01)
        self._strikes = 0
        return sum(self.proxy.struck.values()) > before

    def _choose(self, _method: str, _path: str) -> Fault | None:
        """Refuse the next request, which the server then never sees."""
        if self._strikes:
            self._strikes = 0
            return "refused"
        return None

    def _kill_raylet(self, worker: psutil.Process) -> bool:
        node = self._node_of(worker)
        self.nodes.raylet(node).kill()
        self._replace(node)
        return True

    def _kill_node(self, worker: psutil.Process) -> bool:
        node = self._node_of(worker)
        raylet = self.nodes.raylet(node)
        for process in (raylet, *raylet.children(recursive=True)):
            process.kill()
        self._replace(node)
        return True

    def _node_of(self, worker: psutil.Process) -> Any:
        ancestors = {process.pid for process in worker.parents()}
        return next(one for one in self.nodes.nodes if self.nodes.raylet(one).pid in ancestors)

    def _replace(self, node: Any) -> None:
        self.nodes.remove(node)
        self.nodes.add()


def play(stand: Stand, round_: Round, left: Counter[str], reference: dict[str, str]) -> None:
    """Make everything again, kill meanwhile what is still to be killed, and judge."""
    began, puts = time.monotonic(), len(stand.bucket.requests("PUT"))
    with stand.state.database.read() as connection:
        last = max((job.id for job in jobs.listed(connection, ended=True)), default=0)
        first_token = objects.counter(connection, "fencing_token")
    stand.begin_again()
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        stand.keep_a_controller()
        time.sleep(stand.random.uniform(*EVERY_SECONDS))
        try:
            if stand.is_settled():
                round_.settled = True
                break
            wanted = [kind for kind, number in (left - round_.kills).items() if number > 0]
            if wanted:
                kind = stand.random.choice(wanted)
                round_.kills[kind] += stand.kill(kind)
        except (psutil.Error, StopIteration, *PASSING):
            continue  # the victim was gone already, or our own connection was the one
    _judge(stand, round_, reference, last)
    with stand.state.database.read() as connection:
        round_.starts = objects.counter(connection, "fencing_token") - first_token
    written = Counter(path for path in stand.bucket.requests("PUT")[puts:] if _is_shard(path))
    round_.sealed_again = sum(number - 1 for number in written.values())
    round_.seconds = round(time.monotonic() - began, 1)


def _judge(stand: Stand, round_: Round, reference: dict[str, str], last: int) -> None:
    found = stand.contents()
    with stand.state.database.read() as connection:
        done = [job for job in jobs.listed(connection, ended=True) if job.id > last]
    succeeded = Counter(job.digest for job in done if job.state == "succeeded")
    round_.jobs = len(done)
    round_.missing = len(reference.keys() - found.keys())
    round_.differing = sum(found.get(one, content) != content for one, content in reference.items())
    round_.doubled = sum(number - 1 for number in succeeded.values())


def _is_shard(path: str) -> bool:
    return f"/{keys.SHARDS}/" in path


@contextmanager
def standing(folder: Path, seed: int) -> Iterator[tuple[Stand, dict[str, str]]]:
    """Start everything, and make the experiment once without a kill: on disk, then here."""
    on_disk = Place(folder / "disk")
    on_disk.write()
    on_disk.settle()
    with ExitStack() as stack:
        os.environ |= KEYS
        postgres = stack.enter_context(running_postgres())
        bucket = stack.enter_context(running_bucket("localbucket"))
        proxy = stack.enter_context(proxied(bucket.port))
        nodes = stack.enter_context(running_cluster())
        place = Place(folder / "cluster")
        place.write()
        keep_database_at(place.state, postgres.new_database())
        url = f"s3://{bucket.new_bucket()}/kills?endpoint={proxy.endpoint}"
        words = ("-f", str(place.specs), "--root", str(place.folder))
        code, output = place.call("--artifacts", url, "apply", *words)
        assert code == 0, output
        stand = Stand(place, postgres, bucket, proxy, nodes, open_state(place.state), Random(seed))
        stand.keep_a_controller()
        until = time.monotonic() + PATIENCE_SECONDS
        while not stand.is_settled():
            assert time.monotonic() < until, "nothing settles, and nothing was killed"
            time.sleep(1.0)
        try:
            yield stand, on_disk.payloads()
        finally:
            if stand.controller is not None:
                stand.controller.kill()
            for worker in workers_in(place.state):
                worker.kill()


def recorded(path: Path) -> list[Round]:
    """Return the rounds of earlier calls."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        Round(**{**(said := json.loads(line)), "kills": Counter(said["kills"])}) for line in lines
    ]


def summary(rounds: list[Round]) -> dict[str, object]:
    """Return what is published: kills by kind, and every broken promise."""
    kills = sum((one.kills for one in rounds), Counter())
    seconds = sorted(one.seconds for one in rounds)
    return {
        "rounds": len(rounds),
        "kills": {kind: kills[kind] for kind in GOALS},
        "jobs": sum(one.jobs for one in rounds),
        "starts": sum(one.starts for one in rounds),
        "notSettled": sum(not one.settled for one in rounds),
        "missing": sum(one.missing for one in rounds),
        "differing": sum(one.differing for one in rounds),
        "doubled": sum(one.doubled for one in rounds),
        "sealedAgain": sum(one.sealed_again for one in rounds),
        "secondsOfARound": seconds[len(seconds) // 2] if seconds else None,
    }


def main() -> int:
    """Go on with the record until every kind has its number or the time is over."""
    reader = argparse.ArgumentParser(description=__doc__)
    for kind, number in GOALS.items():
        reader.add_argument(f"--{kind}s", dest=kind, type=int, default=number)
    reader.add_argument("--minutes", type=float, default=24 * 60.0)
    reader.add_argument("--record", type=Path, default=Path("build/cluster-kills.jsonl"))
    given = reader.parse_args()
    goals = Counter({kind: getattr(given, kind) for kind in GOALS})
    given.record.parent.mkdir(parents=True, exist_ok=True)
    rounds, until = recorded(given.record), time.monotonic() + 60 * given.minutes
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip()
    with (
        tempfile.TemporaryDirectory(prefix="loopscope-kills-") as folder,
        standing(Path(folder), len(rounds)) as (stand, reference),
    ):
        while time.monotonic() < until:
            left = goals - sum((one.kills for one in rounds), Counter())
            if not left:
                break
            one = Round(len(rounds), commit)
            play(stand, one, left, reference)
            rounds.append(one)
            with given.record.open("a") as record:
                record.write(one.line())
            sys.stdout.write(one.line())
            sys.stdout.flush()
            if not one.is_clean:
                sys.stdout.write(stand.place.worker_log()[-5000:] + "\n")
                break
    sys.stdout.write(json.dumps(summary(rounds)) + "\n")
    return 0 if all(one.is_clean for one in rounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
