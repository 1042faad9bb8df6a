"""``controller``: stay and keep the state folder true to its specs."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from controller.settings import Settings
from loopscope.commands.options import (
    DeviceOption,
    FloorOption,
    GraceOption,
    RootOption,
    StartsOption,
    TrashOption,
)
from loopscope.context import CommandError, now, root_of
from loopscope.logs import log_to_stderr


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("controller")(controller)


def controller(
    context: typer.Context,
    watch: Annotated[
        Path | None, typer.Option(help="Folder whose files are the source of truth.")
    ] = None,
    root: RootOption = None,
    job_starts_per_minute: StartsOption = 60,
    device: DeviceOption = "cpu",
    free_space_floor: FloorOption = "1GiB",  # type: ignore[assignment]  # read by the parser
    resync_seconds: Annotated[
        float, typer.Option(min=1.0, help="How often reality is looked at again.")
    ] = 10.0,
    lease_seconds: Annotated[
        float, typer.Option(min=1.0, help="A worker that is silent for this long loses its job.")
    ] = 30.0,
    keep_last: Annotated[
        int | None,
        typer.Option(min=0, help="Collect what is unneeded; keep so many artifacts per object."),
    ] = None,
    grace: GraceOption = "7d",  # type: ignore[assignment]
    empty_trash_after: TrashOption = "7d",  # type: ignore[assignment]
) -> None:
    """Reconcile until interrupted. With --watch, edits of the folder's files are picked up."""
    from controller.folder_source import FolderSource  # late: `get` must stay quick
    from controller.retention import Retention
    from controller.runtime import AnotherController, running_controller
    from state.collection import RetentionPolicy

    if watch is not None and not watch.is_dir():
        raise CommandError(f"--watch {watch} is not a folder")
    log_to_stderr(logging.INFO)
    settings = Settings(
        job_starts_per_minute=job_starts_per_minute,
        device=device,
        free_space_floor_bytes=free_space_floor,
        resync_seconds=resync_seconds,
        lease_seconds=lease_seconds,
    )
    state = context.obj.open()
    stop = threading.Event()
    try:
        with running_controller(state, settings) as runtime:

            def end(*_: object) -> None:
                stop.set()
                runtime.wake.set()

            signal.signal(signal.SIGTERM, end)
            signal.signal(signal.SIGINT, end)
            retention: Retention | None = None
            if keep_last is not None:
                policy = RetentionPolicy(keep_last, grace, empty_trash_after)
                retention = Retention(state, policy)

            def collect_then_check() -> bool:
                if retention is not None:
                    retention.run_if_due(now())
                return stop.is_set()

            if watch is None:
                runtime.run_until(collect_then_check)
                return
            folder = watch.resolve()
            source = FolderSource(state, folder, root_of(folder, root), runtime.wake.set)
            source.start()

            def scan_then_check() -> bool:
                source.scan_if_due(now())
                return collect_then_check()

            try:
                runtime.run_until(scan_then_check)
            finally:
                source.stop()
    except AnotherController as error:
        raise CommandError(f"{error}; stop it first", 1) from None
