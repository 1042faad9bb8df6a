"""``controller``: stay and keep the state folder true to its specs."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.limit_options import (
    BurstOption,
    ConfigOption,
    ExecutorOption,
    MemoryOption,
    RayAddressOption,
    ShareOption,
    SlotsOption,
    settings_from,
)
from loopscope.commands.options import (
    DeviceOption,
    FloorOption,
    GraceOption,
    LogFormatOption,
    RootOption,
    StartsOption,
    TrashOption,
)
from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import CommandError, root_of
from loopscope.controller.settings import Settings
from loopscope.logs import log_to_stderr

EXAMPLES = {
    "controller": ("controller --watch specs --keep-last 3",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("controller")(controller)


def controller(
    context: typer.Context,
    watch: Annotated[
        Path | None, typer.Option(help="Folder whose files are the source of truth.")
    ] = None,
    root: RootOption = None,
    config: ConfigOption = None,
    job_starts_per_minute: StartsOption = None,
    burst: BurstOption = None,
    slots: SlotsOption = None,
    slots_per_experiment: ShareOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    free_space_floor: FloorOption = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve metrics and health on this port; 0: any."),
    ] = None,
    metrics_address: Annotated[
        str, typer.Option(help="Address on which that port is open; all may ask there.")
    ] = "127.0.0.1",
    log_format: LogFormatOption = "console",
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
    """Reconcile until interrupted. With --watch, edits of the folder's files are picked up.

    Beside another controller it stands by, and takes over when that one is gone.
    """
    from loopscope.controller.leader_election import leading
    from loopscope.controller.maintenance.retention import Retention
    from loopscope.controller.sources.folder_source import (
        FolderSource,  # late: help must stay quick
    )
    from loopscope.state.artifacts.collection import RetentionPolicy

    context.obj.refuse_namespace("controller")
    if watch is not None and not watch.is_dir():
        raise CommandError(f"--watch {watch} is not a folder")
    settings = Settings(
        **settings_from(context),
        resync_seconds=resync_seconds,
        lease_seconds=lease_seconds,
        metrics_port=metrics_port,
        metrics_address=metrics_address,
    )
    refuse_without_workers("controller", settings)
    state = context.obj.open()
    log_to_stderr(logging.INFO, log_format, also=state.logs / "controller.log")
    stop, wake = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        wake.set()

    retention: Retention | None = None
    if keep_last is not None:
        retention = Retention(state, RetentionPolicy(keep_last, grace, empty_trash_after))

    def collect_then_check() -> bool:
        if retention is not None:
            retention.run_if_due()
        return stop.is_set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for runtime in leading(state, settings, stop, wake):
        if watch is None:
            runtime.run_until(collect_then_check)
            return
        folder = watch.absolute()

        def find_root(folder: Path = folder) -> Path:
            return root_of(folder, root)

        source = FolderSource(state, folder, find_root(), wake.set, find_root=find_root)
        source.start()

        def scan_then_check(source: FolderSource = source) -> bool:
            source.scan_if_due()
            return collect_then_check()

        try:
            runtime.run_until(scan_then_check)
        finally:
            source.stop()
