"""The check that this machine can compute, before a command promises work."""

from __future__ import annotations

from loopscope.context import CommandError


def refuse_without_workers(command: str) -> None:
    """Raise CommandError where the libraries of a worker are not installed."""
    from loopscope.controller.jobs.local_processes import (
        missing_worker_libraries,  # late: help must stay quick
    )

    missing = missing_worker_libraries()
    if missing:
        raise CommandError(
            f"{command} computes, and {', '.join(missing)} cannot be found here; "
            "pip install 'loopscope[worker]', or "
            "leave the computing to another machine"
        )
