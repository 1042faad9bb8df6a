"""The Ray cluster: joining it, what its nodes have, and actors by their names."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from loopscope.controller.jobs.on_ray.needs import Needs, lacking, still_free
from loopscope.controller.jobs.on_ray.stand import Post, Stand
from loopscope.state.failures import TerminalFailure

NAMESPACE = "loopscope"
CONFIGURATION = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,
}
"""A node that is gone is noticed within 3 s; Ray's own figures make it 15 to 60. And workers have
the priority of any process: at Ray's 15, beside others, they would get next to nothing.
"""
OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Orders and answers pass through it and nothing else; Ray accepts no less."""
LOOK_SECONDS = 0.5
"""For how long an answer about nodes is good."""
CALLS_AT_ONCE = 8
"""Of one actor: one listens all the time."""
FREED_SECONDS = 2.0
"""How long the name of a killed actor may still be taken."""


@contextlib.contextmanager
def joined(address: str) -> Iterator[Cluster]:
    """Be part of a cluster while the context lasts. Raises TerminalFailure where there is none.

    With ``local`` it is one of this machine that ends with the context.
    """
    with _handlers_kept():
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
                **(_own_cluster() if address == "local" else {}),
            )
        except Exception as trouble:  # of a node that does not start Ray raises just that
            raise _unreachable(address, trouble) from None
    try:
        yield Cluster(address)
    finally:
        ray.shutdown()


def _own_cluster() -> dict[str, object]:
    return {
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_system_config": CONFIGURATION,
    }


def _unreachable(address: str, trouble: Exception) -> TerminalFailure:
    first = (str(trouble).strip().splitlines() or [type(trouble).__name__])[0]
    advice = (
        "start one with `ray start --head`, or let the controller do so: --ray-address local"
        if address == "auto"
        else "is its head up, and is this the token of `ray get-auth-token`?"
    )
    return TerminalFailure(
        "RayUnreachable", f"no Ray cluster lets us in at {address} ({first}); {advice}"
    )


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handlers of signals: Ray's own would end this process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Cluster:
    """The cluster that this process is part of."""

    address: str
    _nodes: tuple[Needs, ...] = ()
    _free: Needs = field(default_factory=dict)
    _looked_at: float = -LOOK_SECONDS

    def lacking(self, needs: Needs) -> str | None:
        """Return what no node of the cluster has, however idle; None if one has all of it."""
        self._look()
        missing = lacking(needs, self._nodes)
        if missing is None:
            return None
        return f"the Ray cluster at {self.address} {missing}"

    def free_for(self, needs: list[Needs]) -> list[bool]:
        """Return which of these would start now, one after the other, as far as sums can tell."""
        self._look()
        return still_free(needs, self._free)

    def _look(self) -> None:
        if time.monotonic() < self._looked_at + LOOK_SECONDS:
            return
        self._nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
        self._free = ray.available_resources()
        self._looked_at = time.monotonic()

    def this_node(self) -> str:
        """Return what only the node of this process has, as Ray names it."""
        return f"node:{ray.util.get_node_ip_address()}"

    def stand(self, name: str, needs: Needs, post: Post) -> ActorHandle:
        """Return the stand of this name, asking for one where there is none. Does not wait."""
        rest = dict(needs)
        make = ray.remote(Stand).options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=rest.pop("CPU", 0),
            num_gpus=rest.pop("GPU", 0),
            memory=int(rest.pop("memory", 0)) or None,
            resources=rest,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS_AT_ONCE,
        )
        return make.remote(post)

    def found(self, name: str) -> ActorHandle | None:
        """Return the actor of this name, None where there is none or nobody can tell."""
        try:
            return ray.get_actor(name, namespace=NAMESPACE)
        except (ValueError, RayError):
            return None

    def end(self, name: str, actor: ActorHandle) -> None:
        """Kill an actor, and wait a little until another may have its name."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(actor)
        deadline = time.monotonic() + FREED_SECONDS
        while time.monotonic() < deadline and same(self.found(name), actor):
            time.sleep(0.02)


def identity(actor: ActorHandle) -> str:
    """Return the number that no other actor ever has."""
    return str(actor._actor_id.hex())


def same(one: ActorHandle | None, other: ActorHandle) -> bool:
    """Whether two handles mean the same actor."""
    return one is not None and identity(one) == identity(other)
