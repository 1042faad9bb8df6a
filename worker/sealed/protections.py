"""Rights that a process gives up before it reads a pickle; ``python -m`` of it prints which.

Each protection is tried, and named if it holds: namespaces and Landlock are Linux', and a container
may forbid them. The limits on resources hold on every POSIX system.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys

CPU_SECONDS_MAX = 1_800
OPEN_FILES_MAX = 64
_NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS = 1, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_READS = (1 << 2) | (1 << 3)
"""``READ_FILE`` and ``READ_DIR`` of ``linux/landlock.h``, the rights that are kept."""
_LANDLOCK_RIGHTS = {1: 13, 2: 14}
"""Version of Landlock -> number of its rights on files; 15 since version 3."""

NAMES = {
    "limits": "its memory, processor time and open files are limited",
    "no-growth": "no file can grow",
    "no-network": "it has no network (an own network namespace)",
    "no-writes": "it can write, make, remove and execute no file (Landlock)",
    "no-new-rights": "it can gain no rights, and ends with the process that started it",
}
"""Protection -> what it means, in words."""


def before_imports(memory_bytes: int) -> list[str]:
    """Give up network, rights, memory, time and files; return the names of what holds.

    To be called before a second thread starts: a namespace is entered by a process of one.
    """
    held = []
    if _control(_SET_NO_NEW_PRIVS, 1) and _control(_SET_PDEATHSIG, signal.SIGKILL):
        held.append("no-new-rights")
    if _call("unshare", _NEW_USER | _NEW_NETWORK | _NEW_IPC) == 0:
        held.append("no-network")
    limits = {
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_CPU: CPU_SECONDS_MAX,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES_MAX,
    }
    if _limit(limits):
        held.append("limits")
    return held


def before_reading() -> list[str]:
    """Give up writing, which imports may need; return the names of what holds."""
    held = []
    if _limit({resource.RLIMIT_FSIZE: 0}):
        held.append("no-growth")
    if _restrict_files():
        held.append("no-writes")
    return held


def _limit(limits: dict[int, int]) -> bool:
    try:
        for kind, most in limits.items():
            hard = resource.getrlimit(kind)[1]
            limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (limit, limit))
    except (OSError, ValueError):
        return False
    return True


def _restrict_files() -> bool:
    """Forbid all that Landlock knows of files but reading; sockets, too, from version 4 on."""
    version = _call("syscall", _LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = (1 << _LANDLOCK_RIGHTS.get(version, 15)) - 1
    ruleset = struct.pack("=Q", rights & ~_LANDLOCK_READS)
    if version >= 4:
        ruleset += struct.pack("=Q", 3)  # bind and connect of TCP
    made = _call("syscall", _LANDLOCK_CREATE, ruleset, len(ruleset), 0)
    if made < 0:
        return False
    try:
        return _call("syscall", _LANDLOCK_RESTRICT, made, 0) == 0
    finally:
        os.close(made)


def _control(option: int, value: int) -> bool:
    return _call("prctl", option, value, 0, 0, 0) == 0


def _call(function: str, *arguments: int | bytes | None) -> int:
    """Return what a function of the C library returns, -1 where there is none."""
    if not sys.platform.startswith("linux"):
        return -1
    with contextlib.suppress(OSError, AttributeError):
        called = getattr(ctypes.CDLL(None, use_errno=True), function)
        wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
        return int(called(*wide))
    return -1


if __name__ == "__main__":
    sys.stdout.write(json.dumps(before_imports(resource.RLIM_INFINITY) + before_reading()))
