"""The check that this machine can compute, before a command promises work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopscope.context import CommandError

if TYPE_CHECKING:
    from loopscope.controller.settings import Settings


def refuse_without_workers(command: str, settings: Settings | None = None) -> None:
    """Raise CommandError where the libraries of a worker are not installed, and needed here.

    Where the settings let a cluster compute, this machine need not be able to.
    """
    if settings is not None and settings.executor != "processes":
        return
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
