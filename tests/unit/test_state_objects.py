"""The object store: generations, versions, conflicts, watches and deletion."""

from contextlib import suppress
from dataclasses import replace

import pytest

from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.db import objects, tables
from loopscope.state.failures import TerminalFailure
from tests.simulated import new_state

KEY = Key("Capture", "default", "cap")
OTHER = Key("Capture", "default", "other")
READY = Status(
    1,
    (Condition("Ready", "True", "Succeeded", "done", 1, 5.0),),
    {"candidates": [1, 2], "fvu": 0.25, "none": None},
    {"model": {"ref": {"identity": "x"}}},
    ArtifactReference("capture", "d" * 64, "c" * 64),
)


class Store:
    """One transaction per call, as commands and the controller use it."""

    def __init__(self, database):
        self.database = database

    def apply(self, key=KEY, spec=None, **changes):
        with self.database.write() as connection:
            return objects.apply(connection, key, spec or {"hook": "a"}, **{"now": 1.0, **changes})

    def get(self, key=KEY):
        with self.database.read() as connection:
            return objects.get(connection, key)

    def set_status(self, read, status=READY, wanted=None):
        with self.database.write() as connection:
            return objects.update_status(connection, read, status, wanted)

    def remove(self, key=KEY):
        with self.database.write() as connection:
            return objects.remove(connection, key, now=9.0)

    def version(self):
        with self.database.read() as connection:
            return objects.resource_version(connection)

    def changes(self, version=0):
        with self.database.read() as connection:
            return [(c.type, c.key) for c in objects.changes_since(connection, version)]


@pytest.fixture
def store(tmp_path):
    return Store(new_state(tmp_path / "state").database)


def test_a_new_object_is_created_once_and_unchanged_afterwards(store):
    assert store.apply() == "created"
    first = store.get()
    assert (first.generation, first.spec, first.status) == (1, {"hook": "a"}, Status())
    assert store.apply(now=2.0) == "unchanged"
    assert store.get() == first


def test_only_a_change_of_the_spec_raises_the_generation(store):
    store.apply()
    assert store.apply(labels={"team": "a"}) == "configured"
    assert store.get().generation == 1
    assert store.apply(labels={"team": "a"}, annotations={"note": "b"}) == "configured"
    assert store.get().generation == 1
    store.set_status(store.get())
    assert store.get().generation == 1
    assert store.apply(spec={"hook": "b"}) == "configured"
    assert store.get().generation == 2


def test_the_order_of_fields_is_no_change(store):
    store.apply(spec={"a": 1, "b": {"c": 1, "d": 2}})
    assert store.apply(spec={"b": {"d": 2, "c": 1}, "a": 1}) == "unchanged"


def test_every_write_raises_the_version_and_what_changes_nothing_writes_nothing(store):
    versions = [store.version()]

    def after(act):
        act()
        versions.append(store.version())

    after(store.apply)
    after(lambda: store.apply(OTHER))
    after(lambda: store.apply(labels={"a": "b"}))
    after(lambda: store.set_status(store.get()))
    after(lambda: store.set_status(store.get(), wanted="digest"))
    after(lambda: store.remove(OTHER))
    assert versions == sorted(set(versions))
    still = store.version()
    store.apply(labels={"a": "b"})
    assert store.set_status(store.get(), wanted="digest") is False
    assert store.version() == still


def test_a_status_comes_back_as_it_was_written(store):
    store.apply()
    assert store.set_status(store.get(), wanted="digest") is True
    found = store.get()
    assert found.status == READY and found.wanted_digest == "digest"
    assert found.ready and not found.stalled


def test_a_ready_of_an_older_generation_does_not_count(store):
    store.apply()
    store.set_status(store.get())
    store.apply(spec={"hook": "b"})
    assert not store.get().ready
    store.set_status(store.get(), replace(READY, observed_generation=2))
    assert not store.get().ready, "the condition itself was observed at generation 1"


def test_a_status_decided_from_an_older_version_is_refused(store):
    store.apply()
    read = store.get()
    store.apply(labels={"a": "b"})
    with pytest.raises(objects.Conflict):
        store.set_status(read)
    assert store.get().status == Status()


def test_a_status_of_an_object_that_is_gone_or_was_made_anew_is_refused(store):
    store.apply()
    read = store.get()
    store.remove()
    with pytest.raises(objects.Conflict):
        store.set_status(read)
    store.apply()
    with pytest.raises(objects.Conflict):
        store.set_status(read)
    assert store.get().uid != read.uid


def test_a_watch_sees_every_later_change_once_and_in_order(store):
    store.apply()
    start = store.version()
    store.apply(OTHER)
    store.apply(spec={"hook": "b"})
    store.remove(OTHER)
    assert store.changes(start) == [("ADDED", OTHER), ("MODIFIED", KEY), ("DELETED", OTHER)]
    assert store.changes(store.version()) == []


def test_a_watch_that_is_too_old_is_told_so(store):
    store.apply()
    store.apply(OTHER)
    with store.database.write() as connection:
        connection.execute(tables.changes.delete().where(tables.changes.c.resource_version < 2))
    assert store.changes(1) == [("ADDED", OTHER)]
    with pytest.raises(objects.Gone):
        store.changes(0)
    with store.database.write() as connection:
        connection.execute(tables.changes.delete())
    assert store.changes(2) == []
    with pytest.raises(objects.Gone):
        store.changes(1)


def test_a_watch_from_a_version_that_was_never_reached_is_told_so(store):
    store.apply()
    with pytest.raises(objects.Gone):
        store.changes(store.version() + 1)


def test_no_status_observes_the_future_or_forgets_the_past(store):
    store.apply()
    store.apply(spec={"hook": "b"})
    store.set_status(store.get(), replace(READY, observed_generation=2))
    for seen in (1, 3):
        with pytest.raises(ValueError, match="observedGeneration"):
            store.set_status(store.get(), replace(READY, observed_generation=seen))
    assert store.get().status.observed_generation == 2


def test_the_change_log_keeps_the_stated_number_of_rows(store, monkeypatch):
    monkeypatch.setattr(objects, "CHANGES_KEPT", 50)
    with store.database.write() as connection:
        for number in range(200):
            objects.apply(connection, KEY, {"n": number}, now=1.0)
    assert len(store.changes(150)) == 50
    with pytest.raises(objects.Gone):
        store.changes(100)


def test_a_protected_object_is_not_deleted(store):
    store.apply(annotations={PROTECT_ANNOTATION: "true"})
    before = store.version()
    with pytest.raises(objects.Protected) as refused:
        store.remove()
    assert refused.value.reason == "Protected" and PROTECT_ANNOTATION in str(refused.value)
    assert store.get() is not None and store.version() == before
    store.apply()
    assert store.remove() == [KEY]


def owned(store):
    store.apply()
    owner = store.get()
    store.apply(OTHER, owner=owner)
    grandchild = Key("Mapping", "default", "grandchild")
    store.apply(grandchild, owner=store.get(OTHER))
    return owner, grandchild


def test_what_an_object_owns_is_deleted_with_it(store):
    owner, grandchild = owned(store)
    assert store.get(OTHER).owner == owner.key
    stranger = Key("Capture", "default", "stranger")
    store.apply(stranger)
    assert store.remove() == [KEY, OTHER, grandchild]
    assert [store.get(key) for key in (KEY, OTHER, grandchild)] == [None] * 3
    assert store.get(stranger) is not None


def test_a_protected_child_keeps_the_whole_family(store):
    _, grandchild = owned(store)
    store.apply(grandchild, owner=store.get(OTHER), annotations={PROTECT_ANNOTATION: "true"})
    with pytest.raises(objects.Protected):
        store.remove()
    assert all(store.get(key) for key in (KEY, OTHER, grandchild))


def test_a_refused_removal_changed_nothing_even_if_its_transaction_goes_on(store):
    _, grandchild = owned(store)
    store.apply(grandchild, owner=store.get(OTHER), annotations={PROTECT_ANNOTATION: "true"})
    before = store.version()
    with store.database.write() as connection, suppress(objects.Protected):
        objects.remove(connection, KEY, now=9.0)
    assert all(store.get(key) for key in (KEY, OTHER, grandchild)) and store.version() == before


def test_an_owned_object_is_edited_by_its_owner_only(store):
    owner, _ = owned(store)
    for wrong in (None, store.get(OTHER)):
        with pytest.raises(TerminalFailure) as refused:
            store.apply(OTHER, {"hook": "b"}, owner=wrong)
        assert refused.value.reason == "OwnedByAnother"
    assert store.apply(OTHER, {"hook": "b"}, owner=owner) == "configured"
    with pytest.raises(TerminalFailure):
        store.apply(KEY, owner=store.get(OTHER))


def test_an_object_with_a_finalizer_is_marked_and_stays(store):
    store.apply()
    with store.database.write() as connection:
        connection.execute(tables.objects.update().values(finalizers=["loopscope.dev/x"]))
    assert store.remove() == []
    marked = store.get()
    assert marked.deletion_timestamp == 9.0
    assert store.remove() == [] and store.get() == marked


def test_deleting_what_is_not_there_is_an_error(store):
    with pytest.raises(KeyError):
        store.remove()


def test_objects_are_listed_by_kind_and_namespace_in_key_order(store):
    keys = [Key("Mapping", "b", "x"), KEY, Key("Capture", "b", "z"), OTHER]
    for key in keys:
        store.apply(key)
    with store.database.read() as connection:
        assert [one.key for one in objects.listed(connection)] == sorted(keys)
        found = objects.listed(connection, "Capture", "b")
        assert [one.key for one in found] == [Key("Capture", "b", "z")]


def test_who_wants_a_digest_can_be_asked(store):
    for key in (KEY, OTHER):
        store.apply(key)
        store.set_status(store.get(key), Status(), "d1" if key == KEY else "d2")
    with store.database.read() as connection:
        assert objects.wanting(connection, "d1") == [KEY]
        assert objects.wanted_digests(connection) == {"d1", "d2"}


def test_what_rests_on_an_artifact_that_is_gone_is_not_ready_and_keeps_its_inputs(store):
    store.apply()
    record = store.get()
    reference = ArtifactReference("capture", "d", "c")
    ready = Status(
        1, (Condition("Ready", "True", "Succeeded", "", 1),), {"n": 1}, {"i": {}}, reference
    )
    with store.database.write() as connection:
        objects.update_status(connection, record, ready, "d")
        assert objects.take_ready_away(connection, "other", "is gone", now=7.0) == []
        assert objects.take_ready_away(connection, "d", "is gone", now=7.0) == [KEY]
    after = store.get()
    assert [(c.type, c.status, c.reason, c.message) for c in after.status.conditions] == [
        ("Ready", "False", "ArtifactDamaged", "is gone"),
        ("Reconciling", "True", "ArtifactDamaged", "is gone"),
    ]
    assert (after.wanted_digest, after.status.inputs) == ("d", {"i": {}})
    assert (after.status.artifact, after.status.summary) == (None, {})
