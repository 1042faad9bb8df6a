"""Apply and run from Python: what the commands of these names do, for notebooks and scripts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from loopscope.context import root_of
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.folder import has_database, open_state

Say = Callable[[str], object]
TAIL_LINES = 20


class RunFailed(Exception):
    """A run did not end with everything Ready; ``exit_code`` is that of ``loopscope run``."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def apply(
    path: Path,
    state: Path,
    *,
    root: Path | None = None,
    confirm: bool = False,
    force_conflicts: bool = False,
) -> dict[str, str]:
    """Store what a file or folder describes; return what became of each object, by its name.

    Raises InvalidSpec with every problem, and Failure; then nothing was stored.
    """
    from loopscope.controller.apply.appliers import ANYBODY, Applier
    from loopscope.controller.plan.requests import Request, fulfil, read_files

    source = SpecSource(path, root_of(path, root))
    request = Request((source,), Applier(ANYBODY, force_conflicts), confirm=confirm)
    found = open_state(state) if has_database(state) else None
    now = time.time()
    reading = read_files(found, request, now=now)
    done = fulfil(found or open_state(state), reading, now=now)
    return {str(one.key): str(one.outcome) for one in done.applied}


def run(path: Path, state: Path, *, say: Say, options: tuple[str, ...] = ()) -> None:
    """Apply a file or folder and work until it is settled; ``say`` gets each line of progress.

    The work is done by ``loopscope run`` in a process of its own: interrupting the notebook
    interrupts it as Ctrl-C does, and what is finished stays. Raises RunFailed.
    """
    command = [sys.executable, "-m", "loopscope", "--state", str(state), "run", str(path)]
    last: deque[str] = deque(maxlen=TAIL_LINES)
    surroundings = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=surroundings,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # it is a pipe
        try:
            for line in process.stdout:
                last.append(line.rstrip("\n"))
                say(last[-1])
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            raise
    if process.returncode:
        raise RunFailed("\n".join(last), process.returncode)
