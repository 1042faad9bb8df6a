"""Progress of a run: a word, a share and the time left of each object, and of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from loopscope.specs.keys import Key
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.state.db import jobs
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.machine_rates import MachineRates
from loopscope.state.records import JobHead, ObjectRecord, Progress
from loopscope.views.forecasts import Forecaster, Stored
from loopscope.views.jobs import job_detail, remaining_seconds
from loopscope.views.numbers import age, counted
from loopscope.views.past_runs import PastRuns
from loopscope.views.settled import Family
from loopscope.views.stages import DONE_WORDS, object_word

FORESEEN_MAX = 50
"""Stages that are foreseen by their shapes; that takes milliseconds each."""
LEARNT_SHARE = 0.05
"""What stages take is asked again once this share of them more has ended."""


@dataclass(frozen=True)
class Row:
    """One object of a run. ``share`` is in [0, 1]; what is not known is None."""

    key: Key
    word: str
    detail: str
    share: float | None = None
    left_seconds: float | None = None

    @property
    def is_stage(self) -> bool:
        """Whether it has work of its own; an experiment has its stages'."""
        return self.key.kind not in OWNER_KINDS


@dataclass(frozen=True)
class Whole:
    """The stages of a run together; ``unknown`` of those that are left never ran before.

    Of ``stuck`` ones it is not known when a human will act: what is left is without them.
    """

    done: int
    stages: int
    share: float
    left_seconds: float | None
    unknown: int
    stuck: int = 0

    @property
    def left(self) -> str:
        """The time left in words."""
        if self.done == self.stages:
            return "nothing left to do"
        if self.done + self.stuck == self.stages:
            waits = "waits" if self.stuck == 1 else "wait"
            return f"{counted(self.stuck, 'stage')} {waits} for a human"
        if self.left_seconds is None:
            return "time left not known yet"
        if self.left_seconds < 1:
            return "done in a moment" if not self.unknown else "time left not known yet"
        if self.unknown:
            return f"at least {age(self.left_seconds)} left"
        return f"about {age(self.left_seconds)} left"

    def __str__(self) -> str:
        share = int(100 * self.share)  # never 100 before the end
        return f"{self.done} of {self.stages} stages done, {share} %, {self.left}"


@dataclass(frozen=True)
class _Still:
    """The row of an object that no job works for, and what it was made from."""

    record: ObjectRecord
    expected: float | None
    row: Row


@dataclass
class RunProgress:
    """Reads how far the objects of ``keys`` and all that they own are."""

    state: StateFolder
    keys: Sequence[Key]
    slots: int = 1
    rates: MachineRates | None = None
    """What this machine does, by which stages are foreseen that never ran before."""
    family: Family = field(init=False)
    _expected: dict[str, float | None] = field(default_factory=dict)
    _foreseen: dict[Key, float | None] = field(default_factory=dict)
    _learnt_at: tuple[int, int] | None = None
    _still: dict[Key, _Still] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.family = Family(self.keys)

    def read(self, now: float) -> tuple[list[Row], Whole]:
        """Return a row for each object, owners first, and the whole."""
        with self.state.database.read() as connection:
            records = self.family.read(connection)
            progress = jobs.progress_of(connection)
            active = {job.digest: job for job in jobs.listed(connection)}
            self._learn(connection, records)
        rows = []
        for record in records:
            job = active.get(record.wanted_digest or "")
            if job is None:
                rows.append(self._still_row(record))
            else:
                rows.append(self._row(record, job, progress.get(job.id), now))
        shares = _shares_of_owners(rows, records)
        rows = [row if row.is_stage else _of_owned(row, shares) for row in rows]
        return rows, self._whole([row for row in rows if row.is_stage])

    def _learn(self, connection: Connection, records: Sequence[ObjectRecord]) -> None:
        """Ask again what stages take, once enough of them have ended or know their inputs.

        Enough is one of few and a twentieth of many: a thousandth run teaches hardly anything.
        """
        ended = len(records) - len(self.family.unsettled)
        wanted = sum(record.wanted_digest is not None for record in records)
        if self._learnt_at is not None and not any(
            abs(now - then) > then * LEARNT_SHARE
            for now, then in zip((ended, wanted), self._learnt_at, strict=True)
        ):
            return
        self._learnt_at = (ended, wanted)
        past = PastRuns(connection, self.state.artifacts)
        stages = [record for record in records if record.key.kind not in OWNER_KINDS]
        kinds = {record.key.kind.lower() for record in stages}
        self._expected = {kind: past.estimate(kind, None, None).seconds for kind in kinds}
        self._foreseen = {}
        if self.rates is not None:
            unknown = (r for r in stages if not r.ready and self._expected_of(r.key) is None)
            forecaster = Forecaster(Stored(connection), self.rates)
            for record in islice(unknown, FORESEEN_MAX):
                self._foreseen[record.key] = forecaster.of(record).seconds

    def _expected_of(self, key: Key) -> float | None:
        return self._foreseen.get(key, self._expected.get(key.kind.lower()))

    def _still_row(self, record: ObjectRecord) -> Row:
        """Return the row of an object without a job: of many most are, and stay the same."""
        expected = self._expected_of(record.key)
        known = self._still.get(record.key)
        if known is None or known.record is not record or known.expected != expected:
            known = _Still(record, expected, self._row(record, None, None, 0.0))
            self._still[record.key] = known
        return known.row

    def _row(
        self, record: ObjectRecord, job: JobHead | None, seen: Progress | None, now: float
    ) -> Row:
        ready = record.status.condition("Ready")
        word, detail = object_word(record), ready.message if ready else ""
        if record.ready:
            return Row(record.key, word, detail, 1.0, 0.0)
        held = ready is not None and ready.reason == "Suspended"
        if job is not None and not held:
            detail = job_detail(job, seen, now=now)
        expected = self._expected_of(record.key)
        if job is None or job.state != "running":
            return Row(record.key, word, detail, 0.0, None if record.stalled else expected)
        share = seen.done / seen.total if seen is not None and seen.total > 0 else 0.0
        guesses = [remaining_seconds(seen)] if seen is not None else []
        if expected is not None and job.started_at is not None:
            guesses.append(max(0.0, job.started_at + expected - now))
        known = [guess for guess in guesses if guess is not None]
        return Row(record.key, word, detail, share, max(known, default=None))

    def _whole(self, stages: Sequence[Row]) -> Whole:
        done = sum(row.word in DONE_WORDS for row in stages)
        shares = sum(min(row.share or 0.0, 1.0) for row in stages)
        stuck = sum(row.word == "Stalled" for row in stages)
        left = [r for r in stages if r.word not in (*DONE_WORDS, "Stalled")]
        known = [row.left_seconds for row in left if row.left_seconds is not None]
        seconds = sum(known) / self.slots if known or not left else None
        share = shares / len(stages) if stages else 0.0
        return Whole(done, len(stages), share, seconds, len(left) - len(known), stuck)


def _shares_of_owners(
    rows: Sequence[Row], records: Sequence[ObjectRecord]
) -> dict[Key, list[float]]:
    """Return the shares of all stages that an object owns, or an object that it owns."""
    owners = {record.key: record.owner for record in records}
    found: dict[Key, list[float]] = {}
    for row in rows:
        above = owners.get(row.key) if row.is_stage else None
        while above is not None:
            found.setdefault(above, []).append(row.share or 0.0)
            above = owners.get(above)
    return found


def _of_owned(row: Row, shares: Mapping[Key, Sequence[float]]) -> Row:
    """Return an experiment's row with the share of its stages, those of its cells included."""
    owned = shares.get(row.key, ())
    share = sum(owned) / len(owned) if owned else 0.0
    return replace(row, share=1.0 if row.word in DONE_WORDS else share)
