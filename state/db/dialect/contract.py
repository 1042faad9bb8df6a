"""The contract of a kind of database: what it must bring beside SQLAlchemy Core.

``tests/conformance/database.py`` tests what a second kind must and must not do.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from sqlalchemy import Connection, Engine

from loopscope.state.failures import Failure


class Dialect(Protocol):
    """A database of some kind, known by its place; nothing is opened before it is asked for."""

    kind: ClassVar[str]
    """Its name in messages."""

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

    def marker(self) -> int:
        """Return a number that changes with each commit, of any process."""
        ...

    def failure(self, error: Exception) -> Failure | None:
        """Return an error of the database itself as a failure; None if the cause is elsewhere."""
        ...

    def back_up(self, note: str) -> None:
        """Copy the last commit, whole and durable, to a place whose name holds ``note``.

        A copy never replaces a different one. Called inside a write transaction.
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
