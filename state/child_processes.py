"""The environment of child processes that must not import what lies in the working folder."""

from __future__ import annotations

import os

SPINS = "10000"
"""Turns for which a thread of libgomp waits before it sleeps; by default it waits for 300,000."""
_WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


def child_environment(**more: str) -> dict[str, str]:
    """Return this process's environment with ``more``, for a child started with ``python -P``.

    An empty entry of ``PYTHONPATH``, as ``PYTHONPATH=$PYTHONPATH:/x`` leaves it where nothing was
    set, means the working folder, in spite of ``-P``.
    """
    environment = {**os.environ, **more}
    if "PYTHONPATH" in environment:
        entries = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry)
    return environment


def computing_environment(**more: str) -> dict[str, str]:
    """Return that environment for a child that computes with torch; what the user set stays.

    Threads of a product that wait for one another spin for a moment only, where libgomp by default
    spins until another process that has the core was served: beside other work that is most of all
    processor time.
    """
    chosen = {} if _WAITING & os.environ.keys() else {"GOMP_SPINCOUNT": SPINS}
    return child_environment(TOKENIZERS_PARALLELISM="false", **chosen, **more)
