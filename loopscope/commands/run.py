"""``run``: apply, reconcile, show progress, stop when settled."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.apply import existing, request_of
from loopscope.commands.limit_options import (
    BurstOption,
    ConfigOption,
    MemoryOption,
    ShareOption,
    SlotsOption,
    settings_from,
)
from loopscope.commands.options import (
    ConfirmOption,
    DeviceOption,
    FloorOption,
    ForceOption,
    LogFormatOption,
    RootOption,
    StartsOption,
    VerboseOption,
)
from loopscope.context import EXIT_STALLED, now
from loopscope.controller.settings import Settings
from loopscope.controller.settled import family, is_settled
from loopscope.live import LiveView
from loopscope.logs import log_to_stderr
from loopscope.specs.keys import Key
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

POLL_SECONDS = 0.25


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="YAML file, or a folder read recursively.")],
    root: RootOption = None,
    config: ConfigOption = None,
    job_starts_per_minute: StartsOption = None,
    burst: BurstOption = None,
    slots: SlotsOption = None,
    slots_per_experiment: ShareOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = None,
    free_space_floor: FloorOption = None,
    force_conflicts: ForceOption = False,
    confirm: ConfirmOption = False,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = "console",
) -> None:
    """Apply a file or folder and work until it is settled.

    Exit 0 when everything is Ready (NO-GO is an answer), 1 when something is Stalled, 130 on
    interrupt.
    """
    from loopscope.controller.requests import fulfil, read_files  # late: `get` must stay quick

    log_to_stderr(logging.INFO if verbose else logging.CRITICAL, log_format)
    settings = Settings(**settings_from(context))
    request = request_of(context.obj, [path], root, force=force_conflicts, confirm=confirm)
    found = existing(context.obj)
    reading = read_files(found, request, now=now())
    state = found or context.obj.open()
    done = fulfil(state, reading, now=now())
    print("\n".join(f"{applied.key} {applied.outcome}" for applied in done.applied))
    keys = [applied.key for applied in done.applied]
    with LiveView(state, keys) as view:
        _until_settled(state, keys, settings, view)
    if any(record.stalled for record in view.print_outcome()):
        raise typer.Exit(EXIT_STALLED)


def _until_settled(state: StateFolder, keys: list[Key], settings: Settings, view: LiveView) -> None:
    from loopscope.controller.runtime import AnotherController, running_controller

    def settled() -> bool:
        with state.database.read() as connection:
            records: list[ObjectRecord] = family(connection, keys)
            done = is_settled(connection, records)
        view.refresh()
        return done

    standing_by = False
    while True:
        try:
            with running_controller(state, settings) as runtime:

                def finished() -> bool:
                    view.tell_trouble(runtime.controller.trouble)
                    return runtime.controller.idle and settled()

                runtime.controller.step()  # artifacts are looked at before anything is settled
                runtime.run_until(finished)
                return
        except AnotherController:
            if not standing_by:
                view.note("another controller works on this state folder; watching it")
            standing_by = True
        if settled():
            return
        time.sleep(POLL_SECONDS)  # then try again: the other one may have died
