"""An open connection to the database: what a caller holds for one transaction and hands on."""

from sqlalchemy import Connection, literal, select

__all__ = ["Connection", "check_open"]

_NOTHING = select(literal(1))


def check_open(connection: Connection) -> None:
    """Raise, in the database's words, if the transaction ended while this process was stopped.

    Ask before each of several things that no rollback takes back.
    """
    connection.execute(_NOTHING)
