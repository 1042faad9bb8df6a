"""Notifier: takes notices from the loop at once, and gives them away in a thread of its own."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from loopscope.controller.clock import Clock
from loopscope.controller.notifications.notices import Notice, Noticing, Place
from loopscope.controller.notifications.webhook import Said
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.db.database import Database
from loopscope.state.failures import Failure
from loopscope.state.records import ObjectRecord

log = structlog.get_logger("notifications")

WAITING_MAX = 1000
"""Notices that wait; of more the oldest are dropped. A newer one of a condition replaces it."""
TRIES_MAX = 12
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 600.0
"""Pauses double: a webhook that is away for less than an hour loses nothing."""
NOTIFIED = "notified"
"""The mark with the resourceVersion up to which all was told, so that a restart loses nothing."""
STOP_SECONDS_MAX = 2.0


@dataclass
class Notifier:
    """Notices that wait, newest state only, and who sends them."""

    noticing: Noticing
    send: Callable[[Notice, float], Said]
    database: Database
    clock: Clock
    counts: Counter[str] = field(default_factory=Counter)
    """How many were ``taken``, ``refused``, given up as ``away``, and ``dropped``."""
    _waiting: OrderedDict[Place, Notice] = field(default_factory=OrderedDict)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _version: int = 0
    _told: int = 0

    def begin(self, connection: Connection, records: Sequence[ObjectRecord], version: int) -> None:
        """Take in all objects at the start; tell of what changed since the last process told."""
        mark = applied.mark(connection, NOTIFIED)
        self._told = int(mark) if mark is not None else version
        self.noticing.prime(one for one in records if one.resource_version <= self._told)
        self.look(records, version)

    def look(self, records: Iterable[ObjectRecord], version: int) -> None:
        """Take in objects that changed, up to a version; never waits."""
        with self._lock:
            for notice in self.noticing.changed(records):
                self._waiting.pop(notice.place, None)
                self._waiting[notice.place] = notice
                if len(self._waiting) > WAITING_MAX:
                    self._waiting.popitem(last=False)
                    self.counts["dropped"] += 1
            self._version = version
            self._lock.notify()

    @property
    def waiting(self) -> int:
        """How many notices wait."""
        return len(self._waiting)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send in a thread while the context lasts; what still waits then is told by the next."""
        thread = threading.Thread(target=self._run, daemon=True, name="notifications")
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            with self._lock:
                self._lock.notify()
            thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        is_noted = True
        while not self._stopped.is_set():
            with self._lock:
                if not self._waiting and is_noted:
                    self._lock.wait()
                notice = next(iter(self._waiting.values()), None)
                version = self._version
            if notice is not None:
                self._deliver(notice)
                is_noted = False
            elif not is_noted:
                is_noted = self._note_told(version)

    def _deliver(self, notice: Notice) -> None:
        """Send one until it is taken, refused, replaced by a newer one, or given up."""
        pause = FIRST_PAUSE_SECONDS
        for left in reversed(range(TRIES_MAX)):
            said = self.send(notice, self.clock.now())
            if said.answer != "away" or not left:
                break
            if self._stopped.wait(pause) or self._waiting.get(notice.place) is not notice:
                return
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
        self.counts[said.answer] += 1
        if said.answer != "taken":
            log.warning("not notified", object=str(notice.object), id=notice.id, why=said.why)
        with self._lock:
            if self._waiting.get(notice.place) is notice:
                del self._waiting[notice.place]

    def _note_told(self, version: int) -> bool:
        """Write down that everything was told; without it the next process tells it again."""
        try:
            with self.database.write() as connection:
                applied.set_mark(connection, NOTIFIED, str(version))
        except Failure as failure:
            log.warning("cannot note what was notified", trouble=str(failure))
            self._stopped.wait(FIRST_PAUSE_SECONDS)
            return False
        self._told = version
        return True
