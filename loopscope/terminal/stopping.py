"""The end of a command that is stopped: one last line, and the exit status for it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from loopscope.context import EXIT_INTERRUPTED, EXIT_TERMINATED
from loopscope.terminal.outlet import ReaderGone


class Terminated(KeyboardInterrupt):
    """SIGTERM: a machine's way of pressing Ctrl-C."""


@contextmanager
def last_line_if_stopped(line: Callable[[str], str]) -> Iterator[None]:
    """End with ``line(what happened)`` on standard error on Ctrl-C, SIGTERM or a closed pipe."""
    with _heeding_sigterm():
        try:
            yield
        except Terminated:
            _end(line("terminated"), EXIT_TERMINATED)
        except KeyboardInterrupt:
            _end(line("interrupted"), EXIT_INTERRUPTED)
        except ReaderGone:
            with contextlib.suppress(ReaderGone):
                print(line("the output is no longer read"), file=sys.stderr)
            raise


def _end(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: then another part handles the signal
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
