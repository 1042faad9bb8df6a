"""What ``cluster_kills`` kills: a state on a server, its artifacts in a bucket, jobs on Ray.

All servers are this machine's, and end with the context. Workers are forks of one process that has
imported everything, so that a kill costs a second of work and not the imports of torch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg

from loopscope.controller.maintenance.fsck import examine
from loopscope.controller.maintenance.rerunning import rerun_stages
from loopscope.specs.keys import Key
from loopscope.state.artifact_place import STORE
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import jobs, objects
from loopscope.state.folder import StateFolder, keep_database_at, open_state
from loopscope.state.records import JobHead
from loopscope.views.settled import family, is_settled
from tests.chaos.bench import STEERING, Bench
from tests.chaos.fork_server import REPOSITORY, SOCKET_VARIABLE, ForkedProcess, ForkServer
from tests.chaos.processes import Process, Processes
from tests.chaos.verdict import payloads
from tests.integration.real import Place
from tests.postgres_server import PostgresServer
from tests.postgres_server import running_server as running_postgres
from tests.ray_cluster import Nodes, running_cluster
from tests.s3_proxy import Fault, Proxy, proxied
from tests.s3_servers import KEYS
from tests.s3_servers import running_server as running_bucket
from tests.tiny_experiment import PLACES

NAMES = ("first", "second", "third")
"""The experiments: each with prompts of its own, so that each has all of its jobs."""
SLOTS, NODES, CPUS_OF_A_NODE = 3, 3, 2
PATIENT = {"health_check_timeout_ms": 10_000}
"""A raylet that was killed refuses to answer, and is missed as soon as ever. One that lives gets
more time to answer than Loopscope asks for: here all nodes share the processors of one machine.
"""
WATCHER = "watcher"
"""What our own connections call themselves: they are none of the victims."""
LOSSES_MAX = 7
"""Of one job: three later it would be given up, and wait for a person."""
NOTICED_SECONDS = 40.0
"""How long the loss of a worker is waited for: it shows in seconds, or when its lease ends."""
STRIKE_SECONDS = 5.0
CLEARED_SECONDS = 60.0
"""How long what a killed worker left may lie there: the controller looks every second."""
QUIET_SECONDS = 600.0
"""How long nothing at all may happen before something is taken for stuck."""
BLOWS: tuple[Fault, ...] = (
    "refused", "cut on its way up", "answer lost", "cut on its way down",
)  # fmt: skip
"""Ways in which a request dies."""


@dataclass(frozen=True)
class Blow:
    """One kill that counted, and after how long a worker's job was seen to be lost."""

    kind: str
    of: str
    noticed_seconds: float | None = None


@dataclass
class World:
    """Servers, cluster and controller, and what is done to them."""

    bench: Bench
    postgres: PostgresServer
    proxy: Proxy
    nodes: Nodes
    state: StateFolder
    """Of the watcher: another folder that names the same server and bucket."""
    random: Random
    controller: ForkedProcess | None = None
    given_up: int = 0
    """Nodes that Ray took for dead while nobody had killed them."""
    _blow: Fault | None = None
    _replacing: Future[None] | None = None
    _one_thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1))
    """Starts nodes, which end with the thread that started them."""

    def __post_init__(self) -> None:
        self.proxy.choose = self._choose

    # -- what goes on ---------------------------------------------------------------------------

    def keep_a_controller(self) -> None:
        """Start the controller, or one in place of a controller that ended."""
        if self.controller is not None and self.controller.poll() is None:
            return
        words = ("controller", "--executor", "ray", "--ray-address", self.nodes.address)
        more = ("--slots", str(SLOTS), "--resync-seconds", "1", "--job-starts-per-minute", "100000")
        with self.bench.state.with_name("controller.log").open("a") as log:
            self.controller = self.bench.start(*words, *more, stdout=log, stderr=log)

    def keep_the_nodes(self) -> None:
        """Replace a node that Ray gave up by itself, as it does beside too much other work."""
        if self._is_replacing:
            return
        gone = next((one for one in self.nodes.nodes if not self.nodes.is_alive(one)), None)
        if gone is not None:
            self.given_up += 1
            self._begin_to_replace(gone)

    def is_settled(self) -> bool:
        """Whether nothing is left to wait for."""
        keys = [Key("Experiment", "default", name) for name in NAMES]
        with self.state.database.read() as connection:
            return is_settled(connection, family(connection, keys))

    def jobs(self) -> list[JobHead]:
        """Return all jobs that there ever were."""
        with self.state.database.read() as connection:
            return jobs.listed(connection, ended=True)

    def mark(self) -> object:
        """Return something that is another when anything happened."""
        with self.state.database.read() as connection:
            seen = {n: (p.phase, p.done) for n, p in jobs.progress_of(connection).items()}
            counters = ("resource_version", "fencing_token")
            return seen, [objects.counter(connection, name) for name in counters]

    def begin_again(self) -> None:
        """Ask for all experiments once more, from their captures on."""
        with self.state.database.write() as connection:
            for name in NAMES:
                experiment = objects.get(connection, Key("Experiment", "default", name))
                assert experiment is not None
                rerun_stages(
                    connection, self.state.artifacts, experiment, "capture", now=time.time()
                )

    def contents(self) -> dict[str, str]:
        """Return the content digest of each artifact that the database knows."""
        with self.state.database.read() as connection:
            return {one.digest: one.content_digest for one in artifact_index.listed(connection)}

    def findings(self) -> list[str]:
        """Return what ``fsck`` finds, but for what the controller clears away meanwhile."""
        until = time.monotonic() + CLEARED_SECONDS
        while (found := examine(self.state.path).findings) and time.monotonic() < until:
            self.keep_a_controller()
            time.sleep(1.0)
        return [f"{one.problem} {one.subject}: {one.what}" for one in found]

    def log(self) -> str:
        """Return the last words of controller and workers."""
        paths = [self.bench.state.with_name("controller.log"), *self.bench.state.glob("logs/*.log")]
        return "\n".join(f"{one}:\n{one.read_text()[-3000:]}" for one in paths if one.exists())

    def wait_until_settled(self, what: str) -> bool:
        """Wait as long as something happens; return whether all is settled."""
        say(f"waits for {what}")
        mark, quiet_since = self.mark(), time.monotonic()
        while not self.is_settled():
            self.keep_a_controller()
            self.keep_the_nodes()
            time.sleep(0.5)
            if (now := self.mark()) != mark:
                mark, quiet_since = now, time.monotonic()
            if time.monotonic() > quiet_since + QUIET_SECONDS:
                say(f"nothing happened in {QUIET_SECONDS:.0f} s, of {what}\n{self.log()}")
                return False
        return True

    # -- what is killed -------------------------------------------------------------------------

    def kill(self, kind: str) -> Blow | None:
        """Kill one of a kind; return what it cost, None where nobody was at work."""
        found = self._at_work()
        if not found:
            return None
        if kind == "connection":
            return self._cut_a_connection()
        if kind == "request":
            return self._strike_a_request()
        job, worker = self.random.choice(found)
        return self._kill_processes(kind, job, worker)

    def _at_work(self) -> list[tuple[JobHead, Process]]:
        """Return running jobs with the workers that hold them and have begun."""
        self.bench.processes.look()
        workers = {one.asked_by: one for one in self.bench.processes.alive("worker") if one.begun}
        with self.state.database.read() as connection:
            running = [one for one in jobs.running(connection) if one.losses < LOSSES_MAX]
        actors = [self.nodes.actor_pid((one.worker or "").rpartition("/")[2]) for one in running]
        pairs = zip(running, actors, strict=True)
        return [(job, workers[pid]) for job, pid in pairs if pid in workers]

    def _kill_processes(self, kind: str, job: JobHead, worker: Process) -> Blow | None:
        """Kill a worker, its raylet or its node; it counts when that cost a job its worker."""
        if kind != "worker" and self._is_replacing:
            return None
        began = time.monotonic()
        if kind == "worker":
            psutil.Process(worker.pid).kill()
        else:
            self._kill_below(self._node_of(worker), whole=kind == "node")
        while time.monotonic() < began + NOTICED_SECONDS:
            self.keep_a_controller()
            with self.state.database.read() as connection:
                now = jobs.head(connection, job.id)
            if now.state == "pending" or now.token > job.token:  # lost, or given back in time
                return Blow(kind, job.stage, round(time.monotonic() - began, 2))
            if now.state != "running":
                return None  # it had just ended
            time.sleep(0.05)
        return None

    def _cut_a_connection(self) -> Blow | None:
        query = (
            "select state, pg_terminate_backend(pid) from (select pid, state from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid() "
            f"and application_name <> '{WATCHER}' order by random() limit 1) one"
        )
        with psycopg.connect(self.postgres.conninfo("d1"), autocommit=True) as connection:
            cut = connection.execute(query).fetchone()
        return Blow("connection", str(cut[0])) if cut is not None and cut[1] else None

    def _strike_a_request(self) -> Blow | None:
        before = sum(self.proxy.struck.values())
        blow = self._blow = self.random.choice(BLOWS)
        until = time.monotonic() + STRIKE_SECONDS
        while time.monotonic() < until and sum(self.proxy.struck.values()) == before:
            time.sleep(0.01)
        self._blow = None
        return Blow("request", blow) if sum(self.proxy.struck.values()) > before else None

    def _choose(self, _method: str, _path: str) -> Fault | None:
        blow, self._blow = self._blow, None
        return blow

    def _node_of(self, worker: Process) -> Any:
        """Return the node whose raylet the actor of a worker descends from."""
        ancestors = {one.pid for one in psutil.Process(worker.asked_by).parents()}
        return next(one for one in self.nodes.nodes if self.nodes.raylet(one).pid in ancestors)

    def _kill_below(self, node: Any, *, whole: bool) -> None:
        """Kill a raylet, or with it all that runs on its node; start another node meanwhile."""
        raylet = self.nodes.raylet(node)
        below = raylet.children(recursive=True) if whole else []
        actors = {one.pid for one in below}
        own = [one for one in self.bench.processes.alive("worker") if one.asked_by in actors]
        for process in (raylet, *below, *(psutil.Process(one.pid) for one in own)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._begin_to_replace(node)

    @property
    def _is_replacing(self) -> bool:
        return self._replacing is not None and not self._replacing.done()

    def _begin_to_replace(self, node: Any) -> None:
        self._replacing = self._one_thread.submit(self._replace, node)

    def _replace(self, node: Any) -> None:
        """Runs in a thread, where Ray's handler of signals could not be set: it gets none."""
        import ray._private.utils as of_ray  # late: running_cluster tells Ray things first

        of_ray.set_sigterm_handler = lambda _handler: None
        self.nodes.remove(node)
        self.nodes.add()

    def rest(self) -> None:
        """Wait until all nodes are there."""
        if self._replacing is not None:
            self._replacing.result()

    def end(self) -> None:
        """End controller and workers at once."""
        with contextlib.suppress(Exception):  # a node that did not start is no matter any more
            self.rest()
        self.bench.kill_everything()


def say(what: str) -> None:
    """Tell who waits what is waited for."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")
    sys.stderr.flush()


@contextmanager
def standing(folder: Path, random: Random) -> Iterator[tuple[World, dict[str, str]]]:
    """Start everything, make the experiments once without a kill, on disk and here.

    Yields the world and the content digests of the artifacts on disk.
    """
    with ExitStack() as stack:
        say("imports torch once, for all that is forked")
        server = stack.enter_context(ForkServer(folder / "server"))
        place = Place(folder / "place")
        _write(place)
        reference = _made_on_disk(place, server)
        say("starts PostgreSQL, a bucket and its proxy")
        os.environ |= KEYS
        postgres = stack.enter_context(running_postgres())
        bucket = stack.enter_context(running_bucket("localbucket"))
        proxy = stack.enter_context(proxied(bucket.port))
        say(f"starts a head of Ray and {NODES} nodes")
        path = os.pathsep.join([str(Path(__file__).parent / "on_nodes"), str(REPOSITORY)])
        os.environ |= {"PYTHONPATH": path, SOCKET_VARIABLE: server.socket_path}
        nodes = stack.enter_context(running_cluster(NODES, CPUS_OF_A_NODE, **PATIENT))
        bench = _bench(place, server, "cluster")
        state = _watched(bench, postgres, f"s3://{bucket.new_bucket()}/a?endpoint={proxy.endpoint}")
        world = World(bench, postgres, proxy, nodes, state, random)
        stack.callback(world.end)
        world.keep_a_controller()
        assert world.wait_until_settled("a first round without kills")
        yield world, reference


def _write(place: Place) -> None:
    for number, name in enumerate(NAMES):
        texts = {
            condition: {"file": f"../texts/{condition}-{number}.txt"}
            for condition in ("target", "neutral")
        }
        steering = STEERING | {"strengths": [0.5 + number / 4, 1.5]}
        place.write(name, prompts=texts, steering=steering)
        for condition in texts:
            lines = (place.folder / f"texts/{condition}.txt").read_text()
            own = f"the {name} river in old {PLACES[condition][0]} was\n"
            (place.folder / f"texts/{condition}-{number}.txt").write_text(lines + own)


def _bench(place: Place, server: ForkServer, name: str) -> Bench:
    arrivals = place.folder / f"{name}.arrivals"
    return Bench(place, server, place.folder / name, Processes(server.journal, arrivals))


def _made_on_disk(place: Place, server: ForkServer) -> dict[str, str]:
    say("makes the experiments on disk, with workers of this machine")
    bench = _bench(place, server, "disk")
    code, output = bench.call(*bench.run_words())
    assert code == 0, output
    return payloads(bench.state)


def _watched(bench: Bench, postgres: PostgresServer, bucket: str) -> StateFolder:
    """Apply the specs to a state on both servers; return it as the watcher sees it."""
    url = postgres.new_database()
    keep_database_at(bench.state, url)
    code, output = bench.call("--artifacts", bucket, *bench.apply_words())
    assert code == 0, output
    watcher = bench.state.with_name(WATCHER)
    keep_database_at(watcher, f"{url}&application_name={WATCHER}")
    shutil.copy(bench.state / STORE, watcher / STORE)
    return open_state(watcher)
