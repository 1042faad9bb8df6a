"""PostgreSQL's errors about itself, as failures whose message gives the remedy."""

from __future__ import annotations

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from loopscope.state.failures import Failure, TerminalFailure, TransientFailure

_FULL = (errors.DiskFull, errors.OutOfMemory, errors.ConfigurationLimitExceeded)
_BUSY = (
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)
_DAMAGED = (errors.DataCorrupted, errors.IndexCorrupted)
_REFUSED = (
    errors.InvalidAuthorizationSpecification,
    errors.InvalidPassword,
    errors.InvalidCatalogName,
)
_NOT_WRITABLE = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)


def failure_of(error: Exception, place: str, patience_seconds: float) -> Failure | None:
    """Return what an error means, or None when it is not about the database itself."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return None
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if isinstance(cause, _FULL):
        return TransientFailure("DiskFull", f"{place} cannot be written: {said}")
    if isinstance(cause, _BUSY):
        return TransientFailure(
            "DatabaseBusy",
            f"another process held {place} for more than {patience_seconds:.0f} s, or came in "
            f"between ({said}); try again, and look for a process that hangs",
        )
    if isinstance(cause, errors.IdleInTransactionSessionTimeout):
        return TransientFailure(
            "DatabaseBusy",
            f"this process stood still while it wrote to {place}, which let others go on ({said}); "
            "nothing was written: try again, on a machine that is less busy",
        )
    if isinstance(cause, _DAMAGED):
        return TerminalFailure(
            "DatabaseDamaged",
            f"{place} is damaged ({said}); restore the server's backup, or run `loopscope rebuild "
            "SPECS`: it sets the tables aside, applies the specs and takes over the artifacts",
        )
    if isinstance(cause, _NOT_WRITABLE):
        return TerminalFailure(
            "StateNotWritable",
            f"{place} cannot be written ({said}); give its user the right to, or name another "
            "state with --state",
        )
    if isinstance(cause, _REFUSED) or _never_let_in(cause, said):
        return TerminalFailure(
            "DatabaseRefused",
            f"{place} let nobody in ({said}); look at user, database and password (PGPASSWORD or "
            "~/.pgpass)",
        )
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return TransientFailure(
            "DatabaseUnreachable",
            f"{place} does not answer ({said}); it is asked again: look at the server and the "
            "network",
        )
    return None


def _never_let_in(cause: psycopg.Error, said: str) -> bool:
    """Whether a connection was refused by name; libpq gives such an error no code."""
    words = ("password authentication failed", "does not exist", "no password supplied",
             "no pg_hba.conf entry")  # fmt: skip
    is_connecting = isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None
    return is_connecting and any(word in said for word in words)
