"""A Ray cluster of several nodes on this machine, whose parts tests stop and kill."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from loopscope.controller.settings import Settings
from loopscope.state.db import leader
from loopscope.state.folder import StateFolder
from tests.s3_servers import free_port

if TYPE_CHECKING:
    from loopscope.controller.jobs.on_ray.actors import RayActors

NODES = 2
CPUS = 8
"""Of each node, whatever the machine has: what tests start is small."""
TRIES = 3
"""Of starting a node: meanwhile somebody may have taken one of its ports."""
STARTS_SECONDS = 180
"""How long a node is waited for; Ray's 30 are too few on a busy machine."""
RAYLET_SECONDS = 120
"""How long its raylet is; Ray waits to the end for one that has died."""
PORTS = (
    "metrics_agent_port",
    "runtime_env_agent_port",
    "dashboard_agent_listen_port",
    "metrics_export_port",
)
"""Of a node's agents. Where they are not named, Ray waits 15 s for each to say which it took."""


class Nodes:
    """The nodes of a cluster beside its head, which places nothing."""

    def __init__(self, cluster: Any, cpus: int = CPUS) -> None:
        self._cluster = cluster
        self.cpus = cpus
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **resources: float) -> Any:
        """Start a node, and wait until the head knows it; on a busy machine it takes some tries."""
        for tries_left in reversed(range(TRIES)):
            before = set(self._cluster.worker_nodes)
            try:
                node = self._cluster.add_node(
                    wait=False,
                    num_cpus=self.cpus,
                    num_gpus=0,
                    resources=resources,
                    object_store_memory=80 * 2**20,
                    **_ports(),
                )
                self._cluster._wait_for_node(node, STARTS_SECONDS)
                _wait_for_agents(node)
            except Exception:  # of a node that does not start Ray raises just that
                for failed in self._cluster.worker_nodes - before:
                    self._cluster.remove_node(failed, allow_graceful=False)
                if not tries_left:
                    raise
            else:
                self.nodes.append(node)
                return node
        raise AssertionError("the last try returns or raises")

    def raylet(self, node: Any) -> psutil.Process:
        """Return the process that Ray has on a node."""
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def is_alive(self, node: Any) -> bool:
        """Whether the process that Ray has on a node is there."""
        return node.all_processes["raylet"][0].process.poll() is None

    def actor_pid(self, actor: str) -> int | None:
        """Return the process of an actor, None of one that Ray does not know."""
        known = self._cluster.global_state.actor_table(actor) if actor else {}
        return known.get("Pid")

    def remove(self, node: Any) -> None:
        """Kill everything that Ray started for a node."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)


@contextmanager
def running_cluster(number: int = NODES, cpus: int = CPUS, **configuration: int) -> Iterator[Nodes]:
    """Start a head and some nodes for the time of the context, and join them. Needs Ray."""
    with tempfile.TemporaryDirectory(prefix="ray-token-") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(RAYLET_SECONDS),
        }
        from ray.cluster_utils import Cluster  # late: it reads these when it is imported

        from loopscope.controller.jobs.on_ray.cluster import CONFIGURATION

        _tell_raylets_where_their_agents_listen()
        head = {
            "num_cpus": 0,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
            "_system_config": CONFIGURATION | configuration,
            **_ports(),
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = Nodes(cluster, cpus)
        try:
            for _ in range(number):
                nodes.add()
            yield nodes
        finally:
            cluster.shutdown()


def _tell_raylets_where_their_agents_listen() -> None:
    """Pass on a port that Ray names to the agent alone, for whose answer a raylet waits 15 s."""
    from ray._private import services  # late, as above

    start = services.start_ray_process

    def start_telling(command: list[str], *words: Any, **more: Any) -> Any:
        listens = re.search(r"--listen-port=([1-9]\d*)", " ".join(command))
        if command[0] == services.RAYLET_EXECUTABLE and listens is not None:
            command = [*command, f"--dashboard_agent_listen_port={listens[1]}"]
        return start(command, *words, **more)

    services.start_ray_process = start_telling


def _wait_for_agents(node: Any) -> None:
    """Wait for the agents of a node, before which no actor starts. Raises TimeoutError."""
    session = Path(node.get_session_dir_path())
    until = time.monotonic() + STARTS_SECONDS
    said = [f"{name}_{node.node_id}" for name in PORTS]
    while not all((session / name).exists() for name in said):
        if time.monotonic() > until:
            raise TimeoutError(f"the agents of node {node.node_id} did not start")
        time.sleep(0.05)


def _ports() -> dict[str, int]:
    return {name: free_port() for name in PORTS}


def executor_on(cluster: Any, state: StateFolder, settings: Settings, *command: str) -> RayActors:
    """Return the executor of a controller that has just begun to lead."""
    from loopscope.controller.jobs.on_ray.making import actors_on

    with state.database.write() as connection:
        epoch = leader.number(connection)
    return actors_on(cluster, state, settings, lambda: None, epoch, command=command)


def workers_in(folder: Path) -> list[psutil.Process]:
    """Return the living worker processes that have a folder, or one below it, in their command."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_worker = "loopscope.worker" in words or ("-S" in words and "-I" not in words)
        is_there = any(word.startswith(str(folder)) for word in words)
        if is_worker and is_there and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
