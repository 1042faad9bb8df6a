"""A Ray cluster of several nodes on this machine, whose parts tests stop and kill."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from loopscope.controller.settings import Settings
from loopscope.state.db import leader
from loopscope.state.folder import StateFolder

if TYPE_CHECKING:
    from loopscope.controller.jobs.on_ray.actors import RayActors

NODES = 2
CPUS = 8
"""Of each node, whatever the machine has: what tests start is small."""


class Nodes:
    """The nodes of a cluster beside its head, which places nothing."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **resources: float) -> Any:
        """Start a node, and wait until the head knows it."""
        node = self._cluster.add_node(
            num_cpus=CPUS, num_gpus=0, resources=resources, object_store_memory=80 * 2**20
        )
        self.nodes.append(node)
        return node

    def raylet(self, node: Any) -> psutil.Process:
        """Return the process that Ray has on a node."""
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def remove(self, node: Any) -> None:
        """Kill everything that Ray started for a node."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)


@contextmanager
def running_cluster() -> Iterator[Nodes]:
    """Start a head and nodes for the time of the context, and join them. Needs Ray."""
    with tempfile.TemporaryDirectory(prefix="ray-token-") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "300",
        }
        from ray.cluster_utils import Cluster  # late: it reads these when it is imported

        from loopscope.controller.jobs.on_ray.cluster import CONFIGURATION

        head = {
            "num_cpus": 0,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
            "_system_config": CONFIGURATION,
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = Nodes(cluster)
        try:
            for _ in range(NODES):
                nodes.add()
            yield nodes
        finally:
            cluster.shutdown()


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
