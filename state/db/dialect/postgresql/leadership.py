"""Leader election on a server: a lease that its holder renews, and a number that fences.

A holder that is stopped or cut off loses the lease; its number is then an old one, and what it
writes with it is refused. Times are those of the server, whose clock all share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from loopscope.state.db.dialect.contract import LeaderElsewhere
from loopscope.state.db.dialect.postgresql.connections import WRITE_LOCK

LEASE_SECONDS = 6
"""How long a leader that renews nothing is waited for; a standby leads in under ten seconds."""
RENEWALS_PER_LEASE = 4
Connect = Callable[[], psycopg.Connection[tuple[object, ...]]]

TABLE = "create table {}.leader_lease (holder text, epoch bigint not null, renewed_at timestamptz)"
ROW = "insert into {}.leader_lease values (null, 0, null)"
_TAKE = (
    "update leader_lease set holder = %s, epoch = epoch + 1, renewed_at = clock_timestamp() "
    f"where holder is null or renewed_at < clock_timestamp() - interval '{LEASE_SECONDS} s' "
    "returning epoch"
)
_RENEW = "update leader_lease set renewed_at = clock_timestamp() where epoch = %s"
_GIVE_BACK = "update leader_lease set holder = null where epoch = %s"
ALIVE = (
    f"select holder from leader_lease "
    f"where renewed_at >= clock_timestamp() - interval '{LEASE_SECONDS} s'"
)


@contextmanager
def lease(connect: Connect, process: str) -> Iterator[int]:
    """Hold the lease while the context lasts; yield its number. Raises LeaderElsewhere."""
    epoch = _take(connect, process)
    ended = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(connect, epoch, ended), name="leader-lease", daemon=True
    )
    renewing.start()
    try:
        yield epoch
    finally:
        ended.set()
        renewing.join()
        with suppress(psycopg.errors.UndefinedTable), connect() as connection:  # set aside
            connection.execute(_GIVE_BACK, (epoch,))


def _take(connect: Connect, process: str) -> int:
    """Take a free or expired lease, when no write of its last holder is on the way any more."""
    with connect() as connection, connection.transaction():
        held = connection.execute(ALIVE).fetchone()
        if held is not None and held[0] is not None:  # without waiting for the leader's writes
            raise LeaderElsewhere(f"another controller, {held[0]}, leads")
        connection.execute(WRITE_LOCK)
        taken = connection.execute(_TAKE, (process,)).fetchone()
        if taken is None:
            raise LeaderElsewhere("another controller was faster")
        return int(str(taken[0]))


def _renew(connect: Connect, epoch: int, ended: threading.Event) -> None:
    """Renew until the end or until another leads; a server that is gone is asked again."""
    connection: psycopg.Connection[tuple[object, ...]] | None = None
    while not ended.wait(LEASE_SECONDS / RENEWALS_PER_LEASE):
        try:
            connection = connection or connect()
            if connection.execute(_RENEW, (epoch,)).rowcount == 0:
                break
        except psycopg.Error:
            if connection is not None:
                connection.close()
            connection = None
    if connection is not None:
        connection.close()
