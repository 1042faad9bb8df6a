"""The executor of a Ray cluster: a long-lived actor a slot, whose worker stays warm.

The name of a slot's actor follows from state and slot. So a controller that comes after another one
finds the actors that this one left, idle or at work, before it asks for new ones. Ray tells when an
actor or its node is gone. It may be wrong: such a worker may live on, and write. Its job is given
to another under a higher token, and what the first one writes then does not count.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ray
import structlog
from ray.actor import ActorHandle
from ray.exceptions import RayError

from loopscope.controller.jobs.executor import Executor
from loopscope.controller.jobs.local_processes import OBITUARIES_MAX
from loopscope.controller.jobs.on_ray.cluster import Cluster, identity
from loopscope.controller.jobs.on_ray.needs import Needs
from loopscope.controller.jobs.on_ray.stand import Heard, Post, Standing
from loopscope.controller.jobs.scheduling import Place
from loopscope.controller.jobs.worker_log import WorkerLog, obituary
from loopscope.state.orders import EXIT_OUT_OF_TIME, STOP_GRACE_SECONDS, Order
from loopscope.state.workers import log_path

log = structlog.get_logger("controller")

HEAR_SECONDS = 2.0
"""How long a stand waits for news before it answers that there is none."""
SILENCE_SECONDS = 20.0
"""A stand that owes an answer for so long is taken for dead, though Ray says nothing of it."""
START_SECONDS = 10.0
"""How long a new actor is waited for; one that comes later is an idle worker then."""
PAUSE_SECONDS = 5.0
"""How soon another actor is asked for after one that could not even start its worker."""
CALL_SECONDS = 2.0


@dataclass
class _Actor:
    """One stand, as its controller sees it."""

    name: str
    slot: int
    device: str
    handle: ActorHandle
    memory_bytes: int
    asked_at: float
    """On the monotonic clock."""
    pipe: IO[bytes]
    log: WorkerLog
    job_id: int | None = None
    model: str | None = None
    has_begun: bool = False
    is_killed: bool = False
    status: int | None = None
    why: str = ""
    """How Ray says that it ended, where no status does."""
    up: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def could_not_start(self) -> bool:
        """Whether it ended before it did anything, and nobody killed it."""
        if self.is_killed or self.has_begun:
            return False
        return not self.up.is_set() or self.status not in (None, -signal.SIGKILL)


@dataclass
class RayActors(Executor):
    """Workers on the nodes of a cluster, one job each."""

    cluster: Cluster
    state_name: str
    """The same for each controller of a state, and for no other."""
    epoch: int
    """Higher than that of any controller of this state before."""
    log_folder: Path
    slot_devices: tuple[str, ...]
    needs: Callable[[str, int], Needs]
    """Of a worker on a device with so much memory."""
    post: Callable[[str, int], Post]
    """The same."""
    wake: Callable[[], None]
    _actors: dict[str, _Actor] = field(default_factory=dict)
    _obituaries: dict[str, str] = field(default_factory=dict)
    _ended: list[int] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _not_before: float = 0.0
    _time_is_up: bool = False

    def __post_init__(self) -> None:
        for slot in range(len(self.slot_devices)):
            left = self.cluster.found(self._actor_name(slot))
            if left is not None:
                found = self._listened_to(slot, left, 0)
                found.up.wait(CALL_SECONDS)

    # -- placing -------------------------------------------------------------------------------

    def places(self) -> tuple[Place, ...]:
        """Return warm workers without a job, and a place for each slot that a node has room for."""
        self._reap()
        if self._time_is_up:
            return ()
        idle = [
            Place(one.device, one.name, one.model)
            for one in self._actors.values()
            if one.up.is_set() and one.job_id is None
        ]
        return (*idle, *(Place(self.slot_devices[slot]) for slot in self._slots_with_room()))

    def _slots_with_room(self) -> list[int]:
        taken = {one.slot for one in self._actors.values()}
        empty = [slot for slot in range(len(self.slot_devices)) if slot not in taken]
        if not empty or time.monotonic() < self._not_before:
            return []
        # what was asked for just now may not be in the sums yet
        new = [one for one in self._actors.values() if time.monotonic() < one.asked_at + 1.0]
        asked = [self.needs(one.device, one.memory_bytes) for one in new]
        wanted = [self.needs(self.slot_devices[slot], 0) for slot in empty]
        fits = self.cluster.free_for([*asked, *wanted])[len(asked) :]
        return [slot for slot, fit in zip(empty, fits, strict=True) if fit]

    def refusal(self, memory_bytes: int) -> str | None:
        """Return what no node of the cluster has, if that is so for every device of the slots."""
        found = [
            self.cluster.lacking(self.needs(device, memory_bytes))
            for device in dict.fromkeys(self.slot_devices)
        ]
        return None if None in found else "; ".join(str(one) for one in found)

    def free_worker(self, place: Place, memory_bytes: int = 0) -> str | None:
        """Return the warm worker of a place, or a new one; None if it is not there in time.

        A warm one that has too little memory makes room for another.
        """
        if place not in self.places():
            return None
        if place.worker is None:
            slot = next(n for n in self._slots_with_room() if self.slot_devices[n] == place.device)
            return self._spawn(slot, memory_bytes)
        warm = self._actors[place.worker]
        if warm.memory_bytes >= memory_bytes:
            return warm.name
        self.kill(warm.name)
        self._reap()
        return self._spawn(warm.slot, memory_bytes)

    def _spawn(self, slot: int, memory_bytes: int) -> str | None:
        device = self.slot_devices[slot]
        needs = self.needs(device, memory_bytes)
        memory = int(needs.get("memory", 0))
        handle = self.cluster.stand(self._actor_name(slot), needs, self.post(device, memory))
        actor = self._listened_to(slot, handle, memory)
        deadline = time.monotonic() + START_SECONDS
        while not actor.up.wait(0.05) and time.monotonic() < deadline:
            if actor.gone.is_set():
                return None
        return actor.name if actor.up.is_set() and actor.job_id is None else None

    def _listened_to(self, slot: int, handle: ActorHandle, memory_bytes: int) -> _Actor:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        words = WorkerLog(log_path(self.log_folder, slot), os.fdopen(reading, "rb"))
        actor = _Actor(
            f"ray/{self._actor_name(slot)}/{identity(handle)}",
            slot,
            self.slot_devices[slot],
            handle,
            memory_bytes,
            time.monotonic(),
            os.fdopen(writing, "wb", buffering=0),
            words,
        )
        self._actors[actor.name] = actor
        threading.Thread(target=self._listen, args=(actor,), daemon=True).start()
        return actor

    def _actor_name(self, slot: int) -> str:
        return f"{self.state_name}-{slot}"

    # -- orders and answers ----------------------------------------------------------------------

    def start(self, worker: str, order: Order, model: str | None = None) -> None:
        """Send the order on its way; a worker that is gone loses it to its lease."""
        actor = self._actors.get(worker)
        if actor is None:
            return  # it is gone, and was reaped
        with self._lock:
            actor.job_id = order.job
            actor.model = model or actor.model
        with contextlib.suppress(RayError):
            actor.handle.order.remote(self.epoch, order.job, order.to_line(), actor.model)

    def finished(self) -> list[int]:
        """Return the jobs that ended since the last call."""
        self._reap()
        with self._lock:
            ended, self._ended = self._ended, []
        return ended

    def time_is_up(self) -> bool:
        """Whether a worker found that its next shard would end after its time."""
        self._reap()
        return self._time_is_up

    def _listen(self, actor: _Actor) -> None:
        """Hear what a stand has to say until it is gone, or belongs to a later controller."""
        try:
            standing: Standing = _answer(actor.handle.take.remote(self.epoch), None)
            if not standing.is_ours:
                actor.why = "was taken over by another controller"
                return
            with self._lock:
                actor.job_id, actor.model = standing.job, standing.model
                actor.memory_bytes = standing.memory_bytes
            actor.up.set()
            self.wake()
            ended, log_from = standing.ended, 0
            while actor.status is None:
                ask = actor.handle.hear.remote(self.epoch, ended, log_from, HEAR_SECONDS)
                heard: Heard = _answer(ask, HEAR_SECONDS + SILENCE_SECONDS)
                if not heard.is_ours:
                    actor.why = "was taken over by another controller"
                    return
                self._note(actor, heard)
                ended, log_from = ended + len(heard.ended), heard.log_end
        except TimeoutError:
            actor.why = "gave no sign of life and is ended"
        except RayError as died:
            actor.why = _in_words(died)
        finally:
            actor.gone.set()
            actor.pipe.close()
            self.wake()

    def _note(self, actor: _Actor, heard: Heard) -> None:
        with contextlib.suppress(OSError):
            actor.pipe.write(heard.log)
        with self._lock:
            actor.has_begun |= heard.has_begun
            actor.status = heard.status
            self._ended.extend(heard.ended)
            if actor.job_id in heard.ended:
                actor.job_id = None
        if heard.ended:
            self.wake()

    # -- liveness and ending ---------------------------------------------------------------------

    def is_alive(self, worker: str) -> bool:
        """Whether Ray knows an actor of this name and number, or we hear it."""
        actor = self._actors.get(worker)
        if actor is not None:
            return not actor.gone.is_set()
        return self._left(worker) is not None

    def how_it_ended(self, worker: str) -> str:
        """Return in words how a worker ended; one that is still heard gives no sign of life."""
        self._reap()
        if worker in self._actors:
            return "gave no sign of life and is ended"
        return self._obituaries.get(worker, "")

    def kill(self, worker: str) -> None:
        """End a worker and its actor, also those that an earlier controller left."""
        actor = self._actors.get(worker)
        handle = actor.handle if actor is not None else self._left(worker)
        if handle is None:
            return
        try:
            ours = _answer(handle.kill.remote(self.epoch), CALL_SECONDS)
        except (RayError, TimeoutError):
            ours = True
        if ours:
            self.cluster.end(worker.split("/")[1], handle)
        if actor is not None:
            actor.is_killed = True
            actor.gone.set()

    def stop(self) -> list[str]:
        """Let all workers stop, wait for the grace period, end what is left, and the actors."""
        actors = list(self._actors.values())
        for actor in actors:
            with contextlib.suppress(RayError):
                actor.handle.leave.remote(self.epoch)
        deadline = time.monotonic() + STOP_GRACE_SECONDS + 2
        for actor in actors:
            if actor.up.is_set():
                actor.gone.wait(max(0.0, deadline - time.monotonic()))
            self.kill(actor.name)
        self._actors.clear()
        return [actor.name for actor in actors]

    def _left(self, worker: str) -> ActorHandle | None:
        """Return the actor of a worker that another controller had, if it is there still."""
        kind, _, rest = worker.partition("/")
        name, _, number = rest.partition("/")
        found = self.cluster.found(name) if kind == "ray" and name else None
        return found if found is not None and identity(found) == number else None

    def _reap(self) -> None:
        for name in [n for n, one in self._actors.items() if one.gone.is_set()]:
            actor = self._actors.pop(name)
            if actor.status is not None:  # the worker ended by itself: its stand is of no more use
                self.cluster.end(self._actor_name(actor.slot), actor.handle)
            self._time_is_up |= actor.status == EXIT_OUT_OF_TIME
            how = actor.why if actor.status is None else obituary(actor.status, actor.log)
            if actor.could_not_start:
                self._not_before = time.monotonic() + PAUSE_SECONDS
                log.warning("a worker could not start", worker=name, how=how)
            if actor.job_id is not None:
                self._obituaries[name] = how
                if len(self._obituaries) > OBITUARIES_MAX:
                    self._obituaries.pop(next(iter(self._obituaries)))
                with self._lock:
                    self._ended.append(actor.job_id)


def _answer(ref: Any, seconds: float | None) -> Any:
    """Return what a call answers. Raises RayError, and TimeoutError when it takes longer."""
    ready, _ = ray.wait([ref], timeout=seconds)
    if not ready:
        raise TimeoutError
    return ray.get(ref)


def _in_words(died: RayError) -> str:
    """Return Ray's account as the end of a sentence that starts with "the worker"."""
    lines = [line.strip() for line in str(died).splitlines() if line.strip()]
    return f"was lost with its actor: {' '.join(lines)[:300].rstrip('.!')}"
