"""Seams where the n-th system call or statement can be made to fail, with a given error."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from loopscope.state import failpoints


@dataclass
class Fault:
    """Lets the n-th call fail and counts all of them."""

    nth: int
    error: str
    calls: int = 0

    @property
    def fired(self) -> bool:
        return 0 < self.nth <= self.calls

    def passes(self) -> None:
        """Count a call; raise if it is the one."""
        self.calls += 1
        if self.calls == self.nth:
            raise raised(self.error)


def raised(error: str) -> Exception:
    """Return what Python raises for an errno name, or SQLAlchemy for words of SQLite."""
    number = getattr(errno, error, None)
    if number is not None:
        return OSError(number, f"{os.strerror(number)} (planted)")
    return OperationalError("planted", None, sqlite3.OperationalError(error))


class _HalfWritten:
    """A file whose n-th write stops in the middle, as on a disk that fills up."""

    def __init__(self, stream: Any, fault: Fault) -> None:
        self._stream, self._fault = stream, fault

    def write(self, data: Any) -> int:
        try:
            self._fault.passes()
        except OSError:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
            raise
        return self._stream.write(data)

    def __enter__(self) -> _HalfWritten:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _opened(fault: Fault, below: Path, *, modes: str, half: bool = False) -> Iterator[None]:
    original = io.open

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        inside = isinstance(file, str | Path) and str(file).startswith(str(below))
        if not inside or not set(modes) & set(mode):
            return original(file, mode, *args, **kwargs)
        if half:
            return _HalfWritten(original(file, mode, *args, **kwargs), fault)
        fault.passes()
        return original(file, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", open_)
        patch.setattr(builtins, "open", open_)
        yield


@contextmanager
def _called(fault: Fault, below: Path, *names: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(os, name, _failing(getattr(os, name), fault))
        yield


def _failing(original: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        fault.passes()
        return original(*args, **kwargs)

    return call


@contextmanager
def _listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def _statements(fault: Fault, below: Path, *, begins: bool) -> Any:
    def before(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN") == begins:
            fault.passes()

    return _listening(Engine, "before_cursor_execute", before)


def _commits(fault: Fault, below: Path) -> Any:
    return _listening(Engine, "commit", lambda _connection: fault.passes())


@contextmanager
def _failpoints(fault: Fault, below: Path) -> Iterator[None]:
    with failpoints.handled_by(lambda _name: fault.passes()):
        yield


DISK = ("ENOSPC", "EIO", "EMFILE")
SQLITE = (
    "database is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
)

SEAMS: dict[str, tuple[Callable[[Fault, Path], Any], tuple[str, ...]]] = {
    "open to write": (lambda f, p: _opened(f, p, modes="wax"), DISK),
    "open to read": (lambda f, p: _opened(f, p, modes="r"), ("EIO", "EMFILE")),
    "write": (lambda f, p: _opened(f, p, modes="wax", half=True), ("ENOSPC", "EIO")),
    "fsync": (lambda f, p: _called(f, p, "fsync"), ("ENOSPC", "EIO")),
    "rename": (lambda f, p: _called(f, p, "rename", "replace"), DISK),
    "mkdir": (lambda f, p: _called(f, p, "mkdir"), DISK),
    "remove": (lambda f, p: _called(f, p, "unlink", "rmdir"), ("EIO",)),
    "begin": (lambda f, p: _statements(f, p, begins=True), SQLITE),
    "execute": (lambda f, p: _statements(f, p, begins=False), SQLITE),
    "commit": (_commits, SQLITE),
    "failpoint": (_failpoints, DISK),
}
"""What can fail, and with which errors."""


@contextlib.contextmanager
def failing(seam: str, fault: Fault, below: Path) -> Iterator[Fault]:
    """Let calls at a seam fail as ``fault`` says; files only below the folder ``below``."""
    plant, _ = SEAMS[seam]
    with plant(fault, below):
        yield fault
