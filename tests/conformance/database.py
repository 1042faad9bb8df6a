"""What any kind of database does under ``Database``. A new one passes this suite.

Subclass ``DatabaseConformance`` as ``Test…`` and say how the database is opened, how it runs out of
room and where its backups lie; ``test_databases.py`` does so for SQLite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy.exc
from sqlalchemy import Connection, exists, select, text

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.state.db import applied, database, events, jobs, objects, tables
from loopscope.state.db.database import Database, open_database
from loopscope.state.db.dialect.contract import Dialect
from loopscope.state.db.dialect.statements import insert_missing, items, upsert
from loopscope.state.db.objects import counter, raise_counter
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.state.records import edition_of

KEY = Key("Experiment", "default", "x")
DOCUMENT = {
    "deep": {"er": ["first", {"name": "second"}]},
    "nothing": None,
    "number": 3,
    "loopscope.dev/name": "été \U0001f600",
    "list": [{"kind": "a", "is": "no"}, {"kind": "b", "is": "yes"}, {"kind": None}],
    "empty": [],
}
MEBIBYTE = 1024 * 1024


class DatabaseConformance(ABC):
    """The suite. ``self.database`` is migrated and empty when a test starts."""

    @abstractmethod
    def dialect(self, place: Path, patience_seconds: float | None = None) -> Dialect:
        """Return the database of a place, as another process would open it."""

    @abstractmethod
    def fill_up(self, connection: Connection) -> None:
        """Let what is written from now on in this transaction find no room."""

    @abstractmethod
    def backups(self, place: Path) -> list[Database]:
        """Return the copies that were made of the database, to be read."""

    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path) -> None:
        self.place = tmp_path
        self.database = open_database(self.dialect(tmp_path))

    # -- what the tests do -------------------------------------------------------------------

    def another(self, patience_seconds: float | None = None) -> Database:
        return Database(self.dialect(self.place, patience_seconds))

    def raise_version(self, opened: Database) -> int:
        with opened.write() as connection:
            return raise_counter(connection, "resource_version")

    def version(self) -> int:
        with self.another().read() as connection:
            return counter(connection, "resource_version")

    def rows(self, table: sqlalchemy.Table) -> list[dict[str, Any]]:
        with self.another().read() as connection:
            found = connection.execute(select(table).order_by(*table.primary_key)).mappings()
            return [dict(row) for row in found]

    def upserted(self, table: sqlalchemy.Table, *rows: dict[str, Any], **told: Any) -> None:
        with self.database.write() as connection:
            upsert(connection, table, *rows, **told)

    def of_document(self, *columns: Any) -> list[Any]:
        """Store the document, and return what a select of these columns finds."""
        row = {"reference_digest": "d", "kind": "model", "reference": {}, "facts": DOCUMENT,
               "terminal": 0, "observed_at": 0.0}  # fmt: skip
        self.upserted(tables.inputs, row)
        with self.database.read() as connection:
            (found,) = connection.execute(select(*columns).select_from(tables.inputs))
            return list(found)

    # -- upserts -----------------------------------------------------------------------------

    def test_a_row_that_is_written_twice_is_one_row_with_the_later_values(self) -> None:
        for value in ("old", "new", "new"):
            self.upserted(tables.marks, {"name": "m", "value": value})
        assert self.rows(tables.marks) == [{"name": "m", "value": "new"}]

    def test_columns_that_are_not_named_stay_as_they_are(self) -> None:
        self.upserted(tables.workers, {"name": "w", "device": "cpu", "model": "tiny"})
        self.upserted(tables.workers, {"name": "w", "device": "cuda"})
        (row,) = self.rows(tables.workers)
        assert (row["device"], row["model"]) == ("cuda", "tiny")

    def test_of_many_rows_the_new_ones_are_added_and_the_known_ones_replaced(self) -> None:
        for value, names in (("old", "bc"), ("new", "abcd")):
            self.upserted(tables.marks, *({"name": name, "value": value} for name in names))
        assert [(row["name"], row["value"]) for row in self.rows(tables.marks)] == [
            (name, "new") for name in "abcd"
        ]

    def test_what_a_second_write_sets_may_be_computed_from_the_row(self) -> None:
        for now in (1.0, 2.0, 3.0):
            with self.database.write() as connection:
                events.record(connection, KEY, "Normal", "Ready", "it is", now=now)
        (row,) = self.rows(tables.events)
        assert (row["count"], row["first_seen_at"], row["last_seen_at"]) == (3, 1.0, 3.0)

    def test_a_row_is_inserted_once_and_then_left_alone(self) -> None:
        written = []
        for created_at in (1.0, 2.0):
            with self.database.write() as connection:
                row = {"scope": "all", "created_at": created_at}
                written.append(insert_missing(connection, tables.pauses, row))
        assert written == [True, False]
        assert self.rows(tables.pauses) == [{"scope": "all", "created_at": 1.0}]

    # -- JSON --------------------------------------------------------------------------------

    def test_a_document_comes_back_as_it_was(self) -> None:
        assert self.of_document(tables.inputs.c.facts) == [DOCUMENT]

    def test_a_path_leads_to_a_value_however_deep_and_to_nothing_where_there_is_none(self) -> None:
        facts = tables.inputs.c.facts
        assert self.of_document(
            facts[("deep", "er", 0)].as_string(),
            facts[("deep", "er", 1, "name")].as_string(),
            facts["number"].as_integer(),
            facts["loopscope.dev/name"].as_string(),
        ) == ["first", "second", 3, DOCUMENT["loopscope.dev/name"]]
        assert (
            self.of_document(
                facts["nothing"].as_string(),
                facts["nothing"].as_integer(),
                facts["missing"].as_string(),
                facts[("missing", "deep")].as_string(),
                facts[("deep", "er", 7, "name")].as_string(),
            )
            == [None] * 5
        )

    def test_a_number_in_a_document_compares_as_a_number(self) -> None:
        number = tables.inputs.c.facts["number"].as_integer()
        assert self.of_document(number == 3, number > 10) == [True, False]

    def test_items_of_a_list_are_looked_at_one_by_one(self) -> None:
        def has(name: str, kind: str, is_: str) -> Any:
            item = items(tables.inputs.c.facts, name)
            fits = item.c.value["kind"].as_string() == kind
            return (
                exists()
                .select_from(item)
                .where(fits, item.c.value["is"].as_string() == is_)
                .correlate(tables.inputs)
            )

        asked = [("list", "b", "yes"), ("list", "a", "yes"), ("empty", "a", "no"),
                 ("nothing", "a", "no"), ("missing", "a", "no")]  # fmt: skip
        assert self.of_document(*(has(*one) for one in asked)) == [True, *[False] * 4]

    def test_conditions_of_objects_are_read_from_their_status(self) -> None:
        keys = [KEY._replace(name=name) for name in ("older", "ready", "young")]
        for key in keys:
            with self.database.write() as connection:
                objects.apply(connection, key, {"a": 1}, now=0.0)
        ready = Condition("Ready", "True", "Reconciled", "", 1, 0.0)
        older = Condition("RulesCurrent", "False", "RulesChanged", "", 1, 0.0)
        for key, conditions in zip(keys, [(ready, older), (ready,)], strict=False):
            with self.database.write() as connection:
                read = objects.get(connection, key)
                assert read is not None
                status = Status(observed_generation=1, conditions=conditions)
                objects.update_status(connection, read, status, None)
        with self.database.read() as connection:
            assert applied.ready_roots(connection) == {keys[0], keys[1]}
            assert applied.roots_of_older_rules(connection) == {keys[0]}

    def test_labels_are_kept_letter_by_letter_so_that_an_edition_needs_no_reading(self) -> None:
        labels = {"z": "é \U0001f600", "a": 'quoted " \\', "m": ""}
        with self.database.write() as connection:
            objects.apply(connection, KEY, {}, now=0.0, labels=labels, annotations={"b": "1"})
        with self.database.read() as connection:
            record = objects.get(connection, KEY)
            assert record is not None and record.labels == labels
            assert applied.standing(connection)[KEY].edition == edition_of(record)
            assert objects.annotation_values(connection, "b") == [(KEY, "1")]
            assert objects.annotation_values(connection, "c") == []

    # -- text --------------------------------------------------------------------------------

    def test_keys_are_ordered_by_code_points(self) -> None:
        keys = [KEY._replace(name=name) for name in ("a", "B", "é", "_", "a-b", "ab", "10", "9")]
        with self.database.write() as connection:
            for key in keys:
                objects.apply(connection, key, {}, now=0.0)
        with self.database.read() as connection:
            assert objects.all_keys(connection) == sorted(keys)

    def test_bytes_that_are_no_text_are_written_out_wherever_they_stand(self) -> None:
        odd = b"caf\xe9".decode("utf-8", "surrogateescape")
        self.upserted(tables.marks, {"name": odd, "value": odd})
        with self.database.write() as connection:
            objects.apply(connection, KEY, {"path": odd}, now=0.0)
        with self.database.read() as connection:
            assert applied.mark(connection, odd) == "caf\\xe9"
            record = objects.get(connection, KEY)
            assert record is not None and record.spec == {"path": "caf\\xe9"}

    # -- transactions ------------------------------------------------------------------------

    def test_a_reader_sees_one_moment_however_long_it_looks(self) -> None:
        with self.database.read() as reader:
            assert counter(reader, "resource_version") == 0
            self.raise_version(self.another())
            assert counter(reader, "resource_version") == 0
        assert self.version() == 1

    def test_a_reader_cannot_write(self) -> None:
        with self.database.read() as reader:
            with pytest.raises(sqlalchemy.exc.SQLAlchemyError):
                raise_counter(reader, "resource_version")
            reader.rollback()
        assert self.raise_version(self.database) == 1

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_what_was_written_before_an_error_is_taken_back(
        self, error: type[BaseException]
    ) -> None:
        with pytest.raises(error), self.database.write() as connection:
            raise_counter(connection, "resource_version")
            raise error
        assert self.version() == 0
        assert self.raise_version(self.another()) == 1, "and the lock was given back"

    def test_writers_take_turns_and_none_sees_another_half_way(self) -> None:
        together = Barrier(4)

        def write(_: int) -> list[int]:
            opened = self.another()
            together.wait()
            return [self.raise_version(opened) for _ in range(25)]

        with ThreadPoolExecutor(4) as pool:
            numbers = sorted(n for found in pool.map(write, range(4)) for n in found)
        assert numbers == list(range(1, 101))

    # -- a copy and back -----------------------------------------------------------------------

    def test_a_copy_is_one_moment_in_one_file_and_can_take_the_place(self, tmp_path: Path) -> None:
        self.raise_version(self.database)
        first = self.enqueue(self.database, "first")
        copy = tmp_path / "copy"
        writer = self.another()
        with writer.write() as connection:
            raise_counter(connection, "resource_version")
            writer.dialect.may_pause(connection)
            self.database.dialect.copy_to(copy)
        assert self.version() == 2
        for opened in (self.database, self.another()):
            opened.close()
        assert self.database.dialect.set_aside() is not None
        self.database.dialect.restore_from(copy)
        assert not copy.exists()
        self.database = open_database(self.dialect(self.place))
        assert self.version() == 1, "what was not committed yet is not in it"
        assert self.enqueue(self.database, "second") > first, "numbers go on behind its rows"

    # -- the change marker -------------------------------------------------------------------

    def test_the_marker_moves_with_each_commit_whoever_committed(self) -> None:
        found = [self.database.marker()]
        for writer in (self.another(), self.database, self.another()):
            self.raise_version(writer)
            found.append(self.database.marker())
        assert all(before != after for before, after in pairwise(found))

    def test_the_marker_stays_while_others_read_or_take_back(self) -> None:
        before = self.database.marker()
        self.version()
        with pytest.raises(ValueError, match="again"), self.another().write() as connection:
            raise_counter(connection, "resource_version")
            raise ValueError("again")
        assert self.database.marker() == before

    def test_what_is_not_committed_yet_moves_no_marker(self) -> None:
        before = self.database.marker()
        with self.another().write() as connection:
            raise_counter(connection, "resource_version")
            assert self.database.marker() == before
        assert self.database.marker() != before

    # -- jobs --------------------------------------------------------------------------------

    def enqueue(self, opened: Database, digest: str) -> int:
        with opened.write() as connection:
            action = Action("capture", {"d": digest}, {})
            return jobs.enqueue(connection, action, KEY, 1, now=0.0)[0]

    def test_no_claim_is_doubled_by_two_connections(self) -> None:
        queued = [self.enqueue(self.database, str(n)) for n in range(20)]
        together = Barrier(2)

        def claim_all(worker: str) -> list[tuple[int, int]]:
            opened, mine = self.another(), []
            together.wait()
            for job_id in queued:
                try:
                    with opened.write() as connection:
                        job = jobs.claim(connection, job_id, worker, 30.0, now=0.0)
                    mine.append((job.id, job.token))
                except jobs.Fenced:
                    pass
            return mine

        with ThreadPoolExecutor(2) as pool:
            claims = [one for found in pool.map(claim_all, "ab") for one in found]
        assert Counter(job_id for job_id, _ in claims) == Counter(queued)
        assert len({token for _, token in claims}) == len(queued)
        with self.database.read() as connection:
            assert {(job.id, job.token) for job in jobs.running(connection)} == set(claims)

    def test_a_digest_has_one_active_job_whoever_asks_and_however(self) -> None:
        first = self.enqueue(self.database, "d")
        assert self.enqueue(self.another(), "d") == first
        (row,) = self.rows(tables.jobs)
        with pytest.raises(sqlalchemy.exc.IntegrityError), self.database.write() as connection:
            connection.execute(tables.jobs.insert().values({**row, "id": first + 1}))
        with self.database.write() as connection:
            jobs.cancel(connection, first, "Cancelled", "", now=1.0)
        assert self.enqueue(self.database, "d") != first, "an ended job is none of them"

    # -- failures ----------------------------------------------------------------------------

    def test_a_lock_that_others_hold_too_long_is_a_failure_that_may_pass(self) -> None:
        impatient = self.another(patience_seconds=0.01)
        with self.database.write(), pytest.raises(TransientFailure) as busy, impatient.write():
            pass
        assert busy.value.reason == "DatabaseBusy"
        assert impatient.dialect.place in busy.value.message
        assert self.raise_version(impatient) == 1

    def test_a_full_disk_is_a_failure_that_may_pass_and_nothing_is_written(self) -> None:
        with pytest.raises(TransientFailure) as full, self.database.write() as connection:
            self.fill_up(connection)
            upsert(connection, tables.marks, {"name": "m", "value": "x" * MEBIBYTE})
        assert full.value.reason == "DiskFull"
        assert self.rows(tables.marks) == []

    def test_an_error_of_anything_else_is_left_as_it_is(self) -> None:
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError), self.database.read() as connection:
            connection.execute(text("select * from nowhere"))
        with pytest.raises(OSError, match="elsewhere"), self.database.write():
            raise OSError("elsewhere")
        assert self.raise_version(self.database) == 1

    # -- schemas and copies ------------------------------------------------------------------

    def test_opening_again_changes_nothing(self) -> None:
        self.raise_version(self.database)
        before = self.database.marker()
        open_database(self.dialect(self.place))
        assert self.database.marker() == before and self.backups(self.place) == []

    def test_a_newer_schema_is_refused(self) -> None:
        with self.database.write() as connection:
            connection.execute(text("update alembic_version set version_num = '9999'"))
        with pytest.raises(TerminalFailure) as refused:
            open_database(self.dialect(self.place))
        assert refused.value.reason == "NewerDatabase"

    def test_before_a_migration_the_whole_database_is_copied_and_once_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raise_version(self.database)
        monkeypatch.setattr(database, "HEAD_REVISION", "9998")
        for _ in range(2):  # no migration leads there, so each try fails after the copy
            with pytest.raises(Exception, match="9998"):
                open_database(self.dialect(self.place))
        (copy,) = self.backups(self.place)
        with copy.read() as connection:
            assert counter(connection, "resource_version") == 1
        assert self.version() == 1

    def test_the_examination_of_a_whole_database_finds_nothing(self) -> None:
        with self.database.read() as connection:
            assert self.database.dialect.complaints(connection) == []

    def test_a_database_that_is_set_aside_makes_room_for_a_new_one(self) -> None:
        self.raise_version(self.database)
        self.database.close()
        assert self.database.dialect.size_bytes()
        assert self.database.dialect.set_aside()
        assert self.database.dialect.size_bytes() is None
        assert self.database.dialect.set_aside() is None
        open_database(self.dialect(self.place))
        assert self.version() == 0
