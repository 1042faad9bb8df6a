"""A controller on this machine: leader lock, threads that wake it, the loop itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from loopscope.controller.apply.code_identity import code_identity
from loopscope.controller.clock import Clock, SystemClock
from loopscope.controller.controller import Controller
from loopscope.controller.endpoint.health import Health
from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.leases import give_back
from loopscope.controller.jobs.local_processes import LocalProcesses
from loopscope.controller.notifications.notices import Noticing
from loopscope.controller.notifications.notifier import Notifier
from loopscope.controller.notifications.webhook import Webhook, secret_of
from loopscope.controller.reconcile.resolution import Resolver
from loopscope.controller.settings import Settings
from loopscope.state import failpoints
from loopscope.state.db import leader
from loopscope.state.db.dialect.contract import LeaderElsewhere
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import StateFolder, free_to_write
from loopscope.state.processes import process_name
from loopscope.state.source_code import source_at_start

if TYPE_CHECKING:
    from loopscope.controller.endpoint.answers import Endpoint

log = structlog.get_logger("controller")


class AnotherController(Exception):
    """Another process already controls this state folder."""


@dataclass
class Runtime:
    """The loop with its wake-up signal."""

    controller: Controller
    settings: Settings
    wake: threading.Event
    health: Health

    def run_until(self, finished: Callable[[], bool]) -> None:
        """Step until ``finished()``; sleeps at most ``poll_seconds`` between steps."""
        while not _is_true(finished):
            due_at = self.controller.step()
            self.health.stepped()
            wait = due_at - self.controller.clock.elapsed()
            self.wake.wait(max(0.0, min(wait, self.settings.poll_seconds)))
            self.wake.clear()


def measured(health: Health, settings: Settings) -> AbstractContextManager[Endpoint | None]:
    """Serve health, and metrics once there are any, if a port is given. Raises PortInUse."""
    return nullcontext() if settings.metrics_port is None else _serving(health, settings)


@contextmanager
def _serving(health: Health, settings: Settings) -> Iterator[Endpoint]:
    from loopscope.controller.endpoint.answers import (  # late: they are rarely asked for
        Endpoint,
        served,
    )

    endpoint, host = Endpoint(health), settings.metrics_address
    with served(endpoint, host, settings.metrics_port or 0) as port:
        log.info("metrics", address=f"http://{host}:{port}/metrics")
        yield endpoint


def _measure(controller: Controller, endpoint: Endpoint | None) -> None:
    """Let an endpoint have the metrics of the controller that leads now."""
    if endpoint is None:
        return
    from loopscope.controller.endpoint.standing import standing_of
    from loopscope.controller.metrics import Metrics

    metrics = Metrics(controller.clock, lambda: standing_of(controller))
    controller.watch_with(metrics)
    endpoint.registry = metrics.registry


def _notifier(state: StateFolder, settings: Settings, clock: Clock) -> Notifier | None:
    """Return who is told of conditions, if the limits name one. Raises SecretMissing."""
    wanted = settings.notifications
    if wanted is None:
        return None
    webhook = Webhook(wanted.url, secret_of(wanted))
    return Notifier(Noticing(wanted), webhook.send, state.database, clock)


def _announce(state: StateFolder, settings: Settings) -> None:
    """Record for ``loopscope queue`` which process controls, and under which limits."""
    process, now = process_name(os.getpid()), SystemClock().now()
    try:
        with state.database.write() as connection:
            before = leader.announce(connection, process, settings.to_json(), now=now)
    except TransientFailure as trouble:
        log.warning("cannot say who controls; going on", trouble=str(trouble))
        return
    log.info("leading", process=process, before=before.process if before else None)


def _is_true(finished: Callable[[], bool]) -> bool:
    """Ask; a database that cannot answer now is asked again after the next step."""
    try:
        return finished()
    except TransientFailure as trouble:
        log.warning("cannot look now; trying again", trouble=str(trouble))
        return False


@contextmanager
def leadership(state: StateFolder) -> Iterator[None]:
    """Hold the lock that the one controller of a state folder holds.

    Raises AnotherController when it is taken.
    """
    source_at_start(), code_identity()  # a standby may lead days after the files changed
    failpoints.reach("leader-lock")
    with ExitStack() as led:
        try:
            led.enter_context(state.database.dialect.leading(process_name(os.getpid())))
        except LeaderElsewhere as other:
            raise AnotherController(str(other)) from None
        yield


@contextmanager
def running_controller(
    state: StateFolder,
    settings: Settings,
    wake: threading.Event | None = None,
    health: Health | None = None,
    endpoint: Endpoint | None = None,
) -> Iterator[Runtime]:
    """Take the leader lock and yield a controller; its workers end with it.

    Raises AnotherController when the lock is taken.
    """
    wake, clock = wake or threading.Event(), SystemClock()
    health = health or Health(clock)
    with leadership(state):
        _announce(state, settings)
        threads = ThreadPoolExecutor(1, thread_name_prefix="resolve")
        resolver = Resolver(threads, wake.set)
        try:
            with (
                state.database.dialect.waking(wake.set),
                _executing(state, settings, clock, wake.set) as executor,
            ):
                controller = Controller(
                    state,
                    settings,
                    clock,
                    executor,
                    resolver,
                    lambda: free_to_write(state.path),
                    notifier=_notifier(state, settings, clock),
                )
                health.leads(controller)
                _measure(controller, endpoint)
                notifying = controller.notifier
                with nullcontext() if notifying is None else notifying.running():
                    yield Runtime(controller, settings, wake, health)
        finally:
            health.steps_aside()
            threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _executing(
    state: StateFolder, settings: Settings, clock: SystemClock, wake: Callable[[], None]
) -> Iterator[Executor]:
    """Yield the executor of the settings, whose workers end with the context."""
    stop_at = settings.stop_at
    seconds_left = None if stop_at is None else lambda: stop_at - clock.elapsed()
    if settings.executor == "ray":
        # late: only who asks for it needs Ray
        from loopscope.controller.jobs.on_ray.making import ray_actors

        with state.database.write() as connection:
            epoch = leader.number(connection)
        with ray_actors(state, settings, wake, epoch, seconds_left) as actors:
            yield actors
        return
    processes = LocalProcesses(
        state.path,
        state.logs,
        settings.slot_devices,
        wake,
        lease_seconds=settings.lease_seconds,
        progress_timeout_seconds=settings.progress_timeout_seconds,
        seconds_left=seconds_left,
    )
    try:
        yield processes
    finally:
        give_back(state.database, processes.stop())
