"""What a deletion leaves: nothing that was the object's own, and a line that every watch sees."""

import pytest
from sqlalchemy import text

from loopscope.specs.keys import Key
from loopscope.state.db import applied, objects, tables
from loopscope.state.records import AppliedRecord
from tests.simulated import new_state

KEY = Key("Mapping", "default", "m")
OTHER = Key("Mapping", "default", "other")


class Store:
    """One transaction per call, as commands use it; an object is applied by somebody."""

    def __init__(self, folder):
        self.database = new_state(folder / "state").database

    def apply(self, key=KEY, owner=None, finalizers=()):
        with self.database.write() as connection:
            objects.apply(connection, key, {"a": 1}, now=1.0, owner=owner)
            record = objects.get(connection, key)
            applied.record(connection, AppliedRecord(key, record.uid, "apply-set:team", {"a": "1"}))
            if finalizers:
                where = tables.objects.c.name == key.name
                values = {"finalizers": list(finalizers)}
                connection.execute(tables.objects.update().where(where).values(**values))
        return self.get(key)

    def get(self, key=KEY):
        with self.database.read() as connection:
            return objects.get(connection, key)

    def remove(self, key=KEY, now=9.0):
        with self.database.write() as connection:
            return objects.remove(connection, key, now=now)

    def version(self):
        with self.database.read() as connection:
            return objects.resource_version(connection)

    def changes(self, after):
        with self.database.read() as connection:
            return [
                (change.resource_version - after, change.type, change.key)
                for change in objects.changes_since(connection, after)
            ]

    def appliers(self):
        """Return the names in the table of who applies what."""
        with self.database.read() as connection:
            rows = connection.execute(text("select name from applied order by name"))
            return list(rows.scalars())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_who_applied_an_object_goes_with_it_and_nobody_elses_record_does(store):
    store.apply()
    store.apply(OTHER)
    store.remove()
    assert store.appliers() == ["other"]


def test_who_applied_what_an_object_owns_goes_with_it(store):
    owner = store.apply()
    store.apply(OTHER, owner=owner)
    assert store.remove() == [KEY, OTHER]
    assert store.appliers() == []


def test_an_object_of_the_same_name_made_anew_belongs_to_nobody(store):
    store.apply()
    store.remove()
    with store.database.write() as connection:
        objects.apply(connection, KEY, {"a": 1}, now=10.0)
    with store.database.read() as connection:
        assert applied.get(connection, KEY, objects.get(connection, KEY).uid) is None
        assert applied.of_manager(connection, "apply-set:team") == []


def test_a_deletion_is_one_change_with_a_version_of_its_own(store):
    store.apply()
    before = store.version()
    store.remove()
    assert store.changes(before) == [(1, "DELETED", KEY)]
    assert store.version() == before + 1


def test_a_mark_for_deletion_raises_the_version_and_every_watch_sees_it(store):
    marked = store.apply(finalizers=["loopscope.dev/x"])
    before = store.version()
    assert store.remove() == []
    after = store.get()
    assert after.deletion_timestamp == 9.0
    assert after.resource_version == before + 1 == store.version() > marked.resource_version
    assert store.changes(before) == [(1, "MODIFIED", KEY)]
    assert store.appliers() == ["m"], "it is still there"


def test_a_status_decided_before_the_mark_is_refused(store):
    """Else a plan for a living object would be written over one that is on its way out."""
    read = store.apply(finalizers=["loopscope.dev/x"])
    store.remove()
    with pytest.raises(objects.Conflict), store.database.write() as connection:
        objects.update_status(connection, read, read.status, "d" * 64)


def test_a_second_deletion_keeps_the_first_time_and_changes_nothing(store):
    store.apply(finalizers=["loopscope.dev/x"])
    store.remove(now=9.0)
    before = store.version(), store.get()
    store.remove(now=99.0)
    assert (store.version(), store.get()) == before


def test_what_a_marked_object_owns_stays_with_it(store):
    owner = store.apply(finalizers=["loopscope.dev/x"])
    store.apply(OTHER, owner=owner)
    assert store.remove() == []
    assert store.get(OTHER) is not None and store.get().deletion_timestamp == 9.0
