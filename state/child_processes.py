"""The environment of child processes that must not import what lies in the working folder."""

from __future__ import annotations

import os


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
