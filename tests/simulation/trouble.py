"""Trouble in the middle of things: at the n-th statement or failpoint of whoever is acting."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from loopscope.state import failpoints
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database
from tests.simulated import Crash

Effect = Callable[[], None]


class DiskTrouble(OSError):
    """An error of the faulty disk, so that it is told from a real one."""


@dataclass
class Trouble:
    """A trap that is set before an action and springs at its n-th arrival.

    An arrival is an SQL statement that is about to run, or a failpoint that is reached.
    """

    database: Database
    arrivals: int = 0
    writes: int = 0
    """Statements that may have changed the database, by anybody."""
    sprung: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    _at: int = 0
    _kind: str = ""
    _place: str | None = None
    _effect: Effect | None = None
    _writing: bool = False
    _nested: bool = False
    _armed: bool = False
    _clock_at: int = 0
    _clock_effect: Effect | None = None
    _clock_place: str | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to the database and to the failpoints."""
        engine = self.database.dialect.engine
        listeners = {
            "before_cursor_execute": self._statement,
            "commit": self._transaction_ended,
            "rollback": self._transaction_ended,
        }
        for name, listener in listeners.items():
            event.listen(engine, name, listener)
        try:
            with failpoints.handled_by(self._failpoint):
                yield
        finally:
            for name, listener in listeners.items():
                event.remove(engine, name, listener)

    def set(
        self, kind: str, at: int = 1, effect: Effect | None = None, place: str | None = None
    ) -> None:
        """Set the trap: ``crash``, ``ENOSPC``, ``EIO``, or ``meanwhile`` with its effect.

        With a ``place``, arrivals at that failpoint count only.
        """
        self._kind, self._at, self._effect, self._place = kind, at, effect, place
        self.arrivals, self.sprung = 0, None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let arrivals count while a process of the product acts."""
        before, self._armed = self._armed, True
        try:
            yield
        finally:
            self._armed = before

    def set_clock_trap(self, at: int, effect: Effect, place: str | None = None) -> None:
        """Let the clock be troubled at the n-th arrival, besides whatever else happens."""
        self._clock_at, self._clock_effect, self._clock_place = at, effect, place

    def unset(self) -> None:
        """Take the trap away; ``sprung`` still says whether it sprang."""
        self._kind, self._clock_effect = "", None

    @contextmanager
    def _paused(self) -> Iterator[None]:
        self._nested = True
        try:
            yield
        finally:
            self._nested = False

    def _statement(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        verb = statement.split(maxsplit=1)[0]
        self.writes += verb in ("INSERT", "UPDATE", "DELETE")
        self._arrive(verb, statement)
        if statement == "BEGIN IMMEDIATE":
            self._writing = True

    def _transaction_ended(self, connection: Connection) -> None:
        self._writing = False

    def _failpoint(self, name: str) -> None:
        self._arrive(name, None)

    def _arrive(self, name: str, statement: str | None) -> None:
        if self._nested or not self._armed:
            return
        self._clock_at -= self._clock_place in (None, name)
        if self._clock_effect is not None and self._clock_at <= 0:
            effect, self._clock_effect = self._clock_effect, None
            effect()
        if not self._kind:
            return
        if self._place not in (None, name):
            return
        self.arrivals += 1
        if self.arrivals < self._at or (self._kind == "meanwhile" and self._writing):
            return
        kind, self._kind = self._kind, ""
        self.sprung = f"{kind} at {name}"
        self.counts[kind] += 1
        if kind == "crash":
            raise Crash
        if kind == "meanwhile":
            assert self._effect is not None
            with self._paused():
                self._effect()
            return
        number = getattr(errno, kind)
        if statement is not None:
            words = "database or disk is full" if kind == "ENOSPC" else "disk I/O error"
            raise OperationalError(statement, {}, sqlite3.OperationalError(words))
        raise DiskTrouble(number, os.strerror(number))
