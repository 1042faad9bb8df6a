"""The making of a Ray executor from the settings of its controller."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.leases import give_back
from loopscope.controller.jobs.on_ray.needs import needs_of
from loopscope.controller.jobs.on_ray.stand import Post
from loopscope.controller.settings import Settings
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder, Whereabouts, whereabouts

if TYPE_CHECKING:
    from loopscope.controller.jobs.on_ray.actors import RayActors
    from loopscope.controller.jobs.on_ray.cluster import Cluster

NODE_STARTS_SECONDS = 180
"""Ray's 30 are too few on a busy machine."""
TOKEN = "ray-token"
"""The file with the token of a cluster that the controller starts."""
PASSED_ON = "LOOPSCOPE_"
"""Variables of the controller with such names reach workers, where the node sets them not."""


@contextmanager
def ray_actors(
    state: StateFolder,
    settings: Settings,
    wake: Callable[[], None],
    epoch: int,
    seconds_left: Callable[[], float] | None,
    command: tuple[str, ...] = (),
) -> Iterator[Executor]:
    """Join the cluster of the settings and yield its executor, whose workers end with it.

    Raises TerminalFailure where there is no Ray, no cluster, or a slot that Ray cannot give.
    """
    _check_devices(settings.slot_devices)
    _tell_ray(settings.ray_address, state.path / TOKEN)
    try:
        # late: Ray reads what it was told when it is imported
        from loopscope.controller.jobs.on_ray.cluster import joined
    except ModuleNotFoundError as missing:
        raise TerminalFailure(
            "DriverMissing",
            f"the executor is ray, and {missing.name} is not installed: "
            "pip install 'loopscope[ray]'",
        ) from None
    with joined(settings.ray_address) as cluster:
        executor = actors_on(cluster, state, settings, wake, epoch, seconds_left, command)
        try:
            yield executor
        finally:
            give_back(state.database, executor.stop())


def actors_on(
    cluster: Cluster,
    state: StateFolder,
    settings: Settings,
    wake: Callable[[], None],
    epoch: int,
    seconds_left: Callable[[], float] | None = None,
    command: tuple[str, ...] = (),
) -> RayActors:
    """Return the executor of a cluster that was joined; ``command`` is for tests, as in Post."""
    from loopscope.controller.jobs.on_ray.actors import RayActors  # late: it imports Ray

    where = whereabouts(state.path)
    node = cluster.this_node() if where.on_one_disk else None
    environment = {n: v for n, v in os.environ.items() if n.startswith(PASSED_ON)}

    def post(device: str, memory_bytes: int) -> Post:
        return Post(
            where,
            "cpu" if device == "cpu" else "cuda:0",  # Ray shows a worker its own card alone
            memory_bytes,
            settings.lease_seconds,
            settings.progress_timeout_seconds,
            None if seconds_left is None else seconds_left(),
            environment,
            command,
        )

    return RayActors(
        cluster,
        _name(where),
        epoch,
        state.logs,
        settings.slot_devices,
        partial(needs_of, settings=settings, node=node),
        post,
        wake,
    )


def _tell_ray(address: str, token_file: Path) -> None:
    """Let Ray ask for a token and send nothing about its use, whatever its defaults are.

    The token is the user's, as Ray finds it; a cluster of our own gets a new one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(NODE_STARTS_SECONDS))
    if address == "local":
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)


def _check_devices(devices: tuple[str, ...]) -> None:
    odd = next((one for one in devices if one not in ("cpu", "cuda:0")), None)
    if odd is not None:
        raise TerminalFailure(
            "DeviceUnavailable",
            f"a slot on {odd} was asked for; which card a worker gets is for Ray to choose: "
            "ask for slots on cuda (--slots cuda=4), one card each",
        )


def _name(where: Whereabouts) -> str:
    """Return a name that all controllers of a state come to, wherever they run."""
    known = f"{where.boot} {where.folder}" if where.on_one_disk else str(where.artifacts)
    return f"loopscope-{hashlib.sha256(known.encode()).hexdigest()[:12]}"
