"""The contract of a kind of database: what it must bring beside SQLAlchemy Core.

``tests/conformance/database.py`` tests what a second kind must and must not do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from sqlalchemy import Connection, Engine

from loopscope.state.failures import Failure


class LeaderElsewhere(Exception):
    """Another process leads the controllers of this database."""


class Dialect(Protocol):
    """A database of some kind, known by its place; nothing is opened before it is asked for."""

    kind: ClassVar[str]
    """Its name in messages."""
    begins_with_the_first_schema: ClassVar[bool]
    """Whether a new database is made by all migrations, else with the tables of now."""

    @property
    def place(self) -> str:
        """How messages name the database."""
        ...

    @property
    def name(self) -> str:
        """The short name, for a column of a table."""
        ...

    @property
    def engine(self) -> Engine:
        """Where connections come from; each is fit for use when it comes."""
        ...

    def size_bytes(self) -> int | None:
        """Return how much room the database takes, 0 when nothing is in it, None without one."""
        ...

    def prepare(self) -> None:
        """Make what must be there before one connects, open to its user alone.

        Raises TerminalFailure where a database would not be safe.
        """
        ...

    def begin_read(self, connection: Connection) -> None:
        """Begin a transaction that sees one moment and in which a write is an error."""
        ...

    def begin_write(self, connection: Connection) -> None:
        """Begin a transaction that no other writer is in, having waited for it if need be.

        Raises TerminalFailure if the database was replaced since it was opened.
        """
        ...

    def may_pause(self, connection: Connection) -> None:
        """Let an open write transaction wait for something else for as long as that takes.

        Others wait for it meanwhile. Without it a writer that says nothing may lose its turn.
        """
        ...

    def leading(self, process: str) -> AbstractContextManager[None]:
        """Lead the controllers of this database while the context lasts.

        Raises LeaderElsewhere. Where a lease can be lost, a write of this object raises
        TerminalFailure once another process leads, however long this one was stopped.
        """
        ...

    def is_led(self) -> bool:
        """Whether any process leads now."""
        ...

    def marker(self) -> int:
        """Return a number that changes with each commit, of any process."""
        ...

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``wake`` from a thread after commits of others, while the context lasts.

        A hint, which may be missed or never come: who must know asks for the marker.
        """
        ...

    def failure(self, error: Exception) -> Failure | None:
        """Return an error of the database itself as a failure; None if the cause is elsewhere."""
        ...

    def back_up(self, note: str) -> None:
        """Copy the last commit, whole and durable, to a place whose name holds ``note``.

        A copy never replaces a different one. Called inside a write transaction.
        """
        ...

    def copy_to(self, path: Path) -> None:
        """Write the last commit, whole, into one new file. Others may write meanwhile."""
        ...

    def check_place(self) -> None:
        """Raise TerminalFailure where a database would not be safe; make nothing."""
        ...

    def restore_from(self, copy: Path) -> None:
        """Take a file that ``copy_to`` wrote as the database, which was set aside before.

        The file lies where a rename reaches this place, and is gone afterwards.
        """
        ...

    def complaints(self, connection: Connection) -> list[str]:
        """Return what is damaged, by the database's own examination."""
        ...

    def set_aside(self) -> str | None:
        """Move the database out of the way, deleting nothing; return its new place, if any.

        All connections are closed before. Killed half-way, it is called again.
        """
        ...

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        ...
