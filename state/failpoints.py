"""Failpoints: named places where a test injects a fault; none is on by default.

Within a process, ``handled_by(handler)`` calls ``handler(name)`` at each place; what it raises
is the fault. Across processes, the environment selects it:

``LOOPSCOPE_FAILPOINT=<name>[:<effect>][@<n>]`` has the n-th arrival (default: every arrival) at the
place end in the effect: ``kill`` (default; SIGKILL to itself, as a power cut would), ``stop``
(SIGSTOP), or an error number such as ``ENOSPC``, ``EIO``, ``EMFILE``.
``LOOPSCOPE_FAILPOINT_LOG=<file>`` appends a line ``<pid> <name>`` at each arrival.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "LOOPSCOPE_FAILPOINT"
LOG_VARIABLE = "LOOPSCOPE_FAILPOINT_LOG"

NAMES = (
    # every write to the database
    "transaction-begin",
    "transaction-commit",
    "transaction-committed",
    "events-trim",
    "changes-trim",
    "object-delete",
    "job-retry",
    # every durable write to the disk
    "fsync",
    "replace",
    # an artifact on its way
    "shard-write",
    "shard-sealed",
    "staging-create",
    "manifest-write",
    "artifact-sealed",
    "artifact-rename",
    "artifact-renamed",
    "artifact-committed",
    "artifact-set-aside",
    # the controller
    "leader-lock",
    "hash-memo-replace",
    "resolution-record",
    "plan-committed",
    "job-claimed",
    "job-handed-over",
    "job-collect",
    "job-cancel",
    "lease-take-back",
    "object-prune",
    "worker-spawn",
    "worker-spawned",
    "worker-kill",
    # the worker
    "heartbeat",
    "progress",
    "job-failure",
    "job-release",
    "conversion-spawn",
    "conversion-rename",
    # reports
    "report-write",
    "bundle-rename",
    # collection of what is not needed any more
    "staging-discard",
    "work-discard",
    "trash-put",
    "trash-take-back",
    "trash-empty",
)

Handler = Callable[[str], None]

_handlers: list[Handler] = []
_arrivals: Counter[str] = Counter()


def reach(name: str) -> None:
    """Let the handler of the place called ``name`` act; without one, do nothing."""
    assert name in NAMES, name
    for handler in _handlers:
        handler(name)
    if LOG_VARIABLE in os.environ:
        with Path(os.environ[LOG_VARIABLE]).open("a") as log:
            log.write(f"{os.getpid()} {name}\n")
    if VARIABLE in os.environ:
        _obey(os.environ[VARIABLE], name)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Call ``handler`` at every place of this process while the context lasts."""
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.remove(handler)


def _obey(order: str, reached: str) -> None:
    place, _, nth = order.partition("@")
    name, _, effect = place.partition(":")
    assert name in NAMES, f"{VARIABLE} names no failpoint: {name}"
    if name != reached:
        return
    _arrivals[name] += 1
    if nth and _arrivals[name] != int(nth):
        return
    if effect in ("", "kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif effect == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        number = getattr(errno, effect)
        raise OSError(number, f"{os.strerror(number)} (failpoint {name})")
