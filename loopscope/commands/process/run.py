"""``run``: apply, reconcile, show progress, stop when settled."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loopscope.commands.applying.apply import done_lines, existing, print_notes, request_of
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
    ConfirmOption,
    DeviceOption,
    FilesOrElseOption,
    FloorOption,
    ForceOption,
    LogFormatOption,
    RootOption,
    RunTimeoutOption,
    StartsOption,
    StopBeforeOption,
    VerboseOption,
)
from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import (
    EXIT_GO_ON,
    EXIT_STALLED,
    EXIT_TIMED_OUT,
    EXIT_UNAVAILABLE,
    CommandError,
    now,
    rates_of_this_machine,
)
from loopscope.controller.clock import SystemClock
from loopscope.controller.settings import Settings
from loopscope.logs import log_to_stderr
from loopscope.specs.keys import Key
from loopscope.state.folder import StateFolder
from loopscope.state.orders import STOP_GRACE_SECONDS
from loopscope.terminal.live import LiveView
from loopscope.terminal.outcome import command_option, how_to_go_on, kept_line, outcomes
from loopscope.terminal.printable import printable
from loopscope.terminal.stopping import last_line_if_stopped
from loopscope.views.numbers import age
from loopscope.views.present import present
from loopscope.views.progress import RunProgress
from loopscope.views.settled import Family, family, waits_for_unavailable

if TYPE_CHECKING:
    from loopscope.controller.runtime import Runtime

POLL_SECONDS = 0.25

EXAMPLES = {
    "run": ("run specs/france.yaml", "run specs --slots 2 --timeout 8h"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    context: typer.Context,
    path: Annotated[
        Path | None, typer.Argument(help="YAML file, or a folder read recursively.")
    ] = None,
    files: FilesOrElseOption = None,
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
    force_conflicts: ForceOption = False,
    confirm: ConfirmOption = False,
    timeout: RunTimeoutOption = None,
    stop_before: StopBeforeOption = None,
    verbose: VerboseOption = False,
    log_format: LogFormatOption = "console",
) -> None:
    """Apply a file or folder and work until it is settled.

    Exit 0 when everything is Ready (NO-GO is an answer), 1 when something is Stalled, 3 when all
    that is left waits for a model or dictionary that cannot be had, 75 when --stop-before ended it
    (the same command goes on), 124 when --timeout did, 130 on interrupt.
    """
    from loopscope.controller.plan.requests import fulfil, read_files  # late: help must stay quick

    paths = [*([path] if path is not None else []), *(files or [])]
    if not paths:
        raise CommandError("name what to run: PATH, or -f PATH")
    log_to_stderr(logging.INFO if verbose else logging.CRITICAL, log_format)
    stop_at = SystemClock().elapsed() + stop_before if stop_before is not None else None
    settings = Settings(**settings_from(context), stop_at=stop_at)
    refuse_without_workers("run", settings)
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    with last_line_if_stopped(lambda what: f"{what}: no work was begun. {how_to_go_on()}"):
        request = request_of(context.obj, paths, root, force=force_conflicts, confirm=confirm)
        found = existing(context.obj)
        reading = read_files(found, request, now=now())
        state = found or context.obj.open()
        done = fulfil(state, reading, now=now())
        print_notes(state, reading)
    keys = [applied.key for applied in done.applied]
    with last_line_if_stopped(lambda what: kept_line(state, keys, what=what)):
        print(printable("\n".join(done_lines(done))))
        progress = RunProgress(
            state, keys, max(1, len(settings.slot_devices)), rates_of_this_machine()
        )
        with LiveView(progress) as view:
            ending = Running(state, progress.family, settings, view, deadline).until_ended()
        _finish(state, keys, ending, timeout)


Ending = Literal["settled", "unavailable", "timed out", "out of time"]


def _finish(state: StateFolder, keys: list[Key], ending: Ending, timeout: float | None) -> None:
    """Print how each object ended, and exit with the status for it."""
    with state.database.read() as connection:
        records = present(connection, family(connection, keys))
    print("\n".join(outcomes(records, keys, command_option(state))))
    if ending == "timed out":
        what = f"timed out after {age(timeout or 0.0)}"
        print(kept_line(state, keys, what=what), file=sys.stderr)
        raise typer.Exit(EXIT_TIMED_OUT)
    if ending == "out of time":
        print(kept_line(state, keys, what="stopped before the time limit"), file=sys.stderr)
        raise typer.Exit(EXIT_GO_ON)
    if any(record.stalled for record in records):
        raise typer.Exit(EXIT_STALLED)
    if ending == "unavailable":
        what = "what is left waits for what cannot be had now"
        print(kept_line(state, keys, what=what), file=sys.stderr)
        raise typer.Exit(EXIT_UNAVAILABLE)


@dataclass
class Running:
    """Work until some objects are settled; the view shows it."""

    state: StateFolder
    family: Family
    settings: Settings
    view: LiveView
    deadline: float
    """On the monotonic clock."""

    def until_ended(self) -> Ending:
        """Work, or watch another controller work, and return how it ended."""
        from loopscope.controller.runtime import AnotherController, running_controller

        standing_by = False
        while True:
            try:
                with running_controller(self.state, self.settings) as runtime:
                    return self._work(runtime)
            except AnotherController:
                if not standing_by:
                    self.view.note("another controller works on this state folder; watching it")
                standing_by = True
            ending = self._ending() or ("out of time" if self._stop_at_passed else None)
            if ending is not None:
                return ending
            time.sleep(POLL_SECONDS)  # then try again: the other one may have died

    def _work(self, runtime: Runtime) -> Ending:
        found: list[Ending] = []

        def finished() -> bool:
            self.view.show_trouble(runtime.controller.trouble)
            ending = self._ending()
            if ending == "timed out" or (ending is not None and runtime.controller.idle):
                found.append(ending)
            elif runtime.controller.out_of_time:
                self.view.refresh()
                found.append("out of time")
            return bool(found)

        try:
            runtime.controller.step()  # artifacts are looked at before anything is settled
            runtime.run_until(finished)
        except KeyboardInterrupt:
            seconds = STOP_GRACE_SECONDS
            self.view.note(f"stopping: workers finish what takes less than {seconds:.0f} s")
            raise
        return found[0]

    @property
    def _stop_at_passed(self) -> bool:
        stop_at = self.settings.stop_at
        return stop_at is not None and SystemClock().elapsed() >= stop_at

    def _ending(self) -> Ending | None:
        with self.state.database.read() as connection:
            self.family.read(connection)
            settled = self.family.is_settled(connection)
            stuck = not settled and waits_for_unavailable(connection, self.family.unsettled)
        passed = time.monotonic() >= self.deadline
        if not (settled or stuck or passed):
            self.view.keep_up()
            return None
        self.view.refresh()
        return "settled" if settled else "unavailable" if stuck else "timed out"
