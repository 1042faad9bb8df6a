"""Named places where a test may kill the process. Nothing happens unless one is switched on.

``LOOPSCOPE_FAILPOINT=<name>`` makes the process that reaches the place kill itself, as a power
cut would. Names are listed in ``NAMES``, so that a misspelt one is an error.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "LOOPSCOPE_FAILPOINT"
NAMES = (
    "shard-sealed",
    "artifact-sealed",
    "artifact-renamed",
    "artifact-committed",
    "plan-committed",
    "job-claimed",
)


def reach(name: str) -> None:
    """Kill this process if the place called ``name`` is switched on."""
    assert name in NAMES, name
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
