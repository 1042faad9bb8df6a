"""The object store against optimistic concurrency, written down a second time in plain dicts."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.status import Status
from loopscope.state.db import objects, tables
from loopscope.state.failures import TerminalFailure
from tests.simulated import new_state

KEYS = [Key("Capture", "default", name) for name in "abcd"]
SPECS = [{"x": 1, "y": [1]}, {"y": [1], "x": 1}, {"x": 2, "y": [1]}, {"x": {"p": 1, "q": 2}}]
NOTES = [{}, {"note": "n"}, {PROTECT_ANNOTATION: "true"}]
FIRST_VERSION, CHANGES_KEPT = 95, 2
key_of = st.sampled_from(KEYS)


@dataclass(frozen=True)
class Thing:
    """What the model knows of an object."""

    uid: str
    spec: dict
    version: int
    generation: int = 1
    status: Status = field(default_factory=Status)
    wanted: str | None = None
    annotations: dict | None = None
    finalizers: tuple = ()
    owner_uid: str | None = None
    deleted_at: float | None = None


class RolledBack(Exception):
    """Raised inside a transaction by a test."""


class StoreAgainstModel(RuleBasedStateMachine):
    """Each rule is one transaction; ``held`` are records that somebody read and holds on to."""

    @initialize(notes=st.sampled_from(NOTES))
    def start(self, notes):
        self.folder = tempfile.TemporaryDirectory()
        self.database = new_state(Path(self.folder.name) / "state").database
        with self.database.write() as connection:  # the log is cut at version 100
            connection.execute(tables.counters.update().values(value=FIRST_VERSION))
        self.kept = objects.CHANGES_KEPT
        objects.CHANGES_KEPT = CHANGES_KEPT
        self.things, self.log, self.version = {}, [], FIRST_VERSION
        self.seen, self.held = [FIRST_VERSION, FIRST_VERSION], []
        self.apply(KEYS[0], SPECS[0], NOTES[0], None)
        self.apply(KEYS[1], SPECS[0], NOTES[0], KEYS[0])
        self.apply(KEYS[2], SPECS[0], notes, KEYS[1])
        self.read(KEYS[0])

    def teardown(self):
        if hasattr(self, "kept"):
            objects.CHANGES_KEPT = self.kept
            self.database.close()
            self.folder.cleanup()

    # -- what people and controllers do ---------------------------------------------

    @rule(key=key_of, spec=st.sampled_from(SPECS), notes=st.sampled_from(NOTES),
          owner=st.none() | key_of)  # fmt: skip
    def apply(self, key, spec, notes, owner):
        old = self.things.get(key)
        owner_thing = self.things.get(owner)
        owner_uid = owner_thing.uid if owner_thing and owner != key else None

        def act(connection):
            record = objects.get(connection, owner) if owner_uid else None
            return objects.apply(connection, key, spec, now=1.0, annotations=notes, owner=record)

        if old and old.owner_uid != owner_uid:
            with pytest.raises(TerminalFailure, match="OwnedByAnother"):
                self.write(act)
            return
        outcome = self.write(act)
        if old is None:
            assert outcome == "created"
            version = self.changes("ADDED", key)
            uid = self.read_one(key).uid
            assert uid not in {thing.uid for thing in self.things.values()}
            self.things[key] = Thing(uid, spec, version, annotations=notes, owner_uid=owner_uid)
        elif (old.spec, old.annotations) == (spec, notes):
            assert outcome == "unchanged"
        else:
            assert outcome == "configured"
            self.things[key] = replace(
                old,
                spec=spec,
                annotations=notes,
                generation=old.generation + (old.spec != spec),
                version=self.changes("MODIFIED", key),
            )

    @rule(which=st.integers(0, 3), spec=st.sampled_from(SPECS), notes=st.sampled_from(NOTES))
    def edit_as_its_owner(self, which, spec, notes):
        if self.things:
            key = sorted(self.things)[which % len(self.things)]
            owners = (k for k in KEYS if k in self.things
                      and self.things[k].uid == self.things[key].owner_uid)  # fmt: skip
            self.apply(key, spec, notes, next(owners, None))

    @rule(key=key_of)
    def read(self, key):
        if key in self.things:
            self.held.append(self.read_one(key))

    @rule(back=st.integers(0, 3), count=st.integers(0, 1), wanted=st.sampled_from([None, "d1"]),
          observed=st.sampled_from([-1, 0, 0, 0, 1]), again=st.booleans())  # fmt: skip
    def update_status(self, back, count, wanted, observed, again):
        """``observed``: how far from the generation that was read; ``again``: read it anew."""
        record = self.held[-1 - back % len(self.held)]
        key = record.key
        if again and key in self.things:
            record = self.read_one(key)
        thing = self.things.get(key)
        status = Status(max(0, record.generation + observed), summary={"count": count})

        def act(connection):
            return objects.update_status(connection, record, status, wanted)

        if thing is None or (thing.uid, thing.version) != (record.uid, record.resource_version):
            with pytest.raises(objects.Conflict):
                self.write(act)
        elif not (
            thing.status.observed_generation <= status.observed_generation <= thing.generation
        ):
            with pytest.raises(ValueError, match="observedGeneration"):
                self.write(act)
        elif (thing.status, thing.wanted) == (status, wanted):
            assert self.write(act) is False
        else:
            assert self.write(act) is True
            version = self.changes("MODIFIED", key)
            self.things[key] = replace(thing, status=status, wanted=wanted, version=version)

    @rule(key=key_of, finalizers=st.sampled_from([(), ("loopscope.dev/x",)]))
    def set_finalizers(self, key, finalizers):
        """There is no call for it yet: a row as a later version might write it."""
        if key in self.things:
            mine = tables.objects.c.name == key.name
            values = {"finalizers": list(finalizers)}
            self.write(lambda c: c.execute(tables.objects.update().where(mine).values(**values)))
            self.things[key] = replace(self.things[key], finalizers=finalizers)

    @rule(which=st.integers(0, 4), caught=st.booleans())
    def remove(self, which, caught):
        """``caught``: the caller swallows a refusal inside its transaction, as a prune does."""
        there = sorted(self.things)
        key = there[which % len(there)] if there and which < 4 else KEYS[-1]

        def act(connection):
            try:
                return objects.remove(connection, key, now=9.0)
            except objects.Protected:
                if caught:
                    return "refused"
                raise

        doomed = self.family(key)
        if key not in self.things:
            with pytest.raises(KeyError):
                self.write(act)
        elif any(self.is_protected(one) for one in doomed):
            if caught:
                assert self.write(act) == "refused"
            else:
                with pytest.raises(objects.Protected):
                    self.write(act)
        else:
            gone = self.write(act)
            assert gone == [one for one in doomed if not self.things[one].finalizers]
            for one in doomed:
                self.model_removes(one)

    @rule(key=key_of)
    def an_error_takes_everything_back(self, key):
        def act(connection):
            objects.apply(connection, key, {"never": 1}, now=1.0)
            raise RolledBack

        owner_uid = self.things[key].owner_uid if key in self.things else None
        with pytest.raises(TerminalFailure if owner_uid else RolledBack):
            self.write(act)

    @rule(watcher=st.integers(0, 1))
    def watch(self, watcher):
        since = self.seen[watcher]
        with self.database.read() as connection:
            if since < self.version and (not self.log or since < self.log[0][0] - 1):
                with pytest.raises(objects.Gone):
                    objects.changes_since(connection, since)
            else:
                found = objects.changes_since(connection, since)
                assert [tuple(change) for change in map(as_tuple, found)] == [
                    entry for entry in self.log if entry[0] > since
                ]
            self.seen[watcher] = objects.resource_version(connection)

    @rule(ahead=st.integers(1, 3))
    def watch_from_a_version_that_never_was(self, ahead):
        """An older database was put back: whoever watched the newer one must list again."""
        with self.database.read() as connection, pytest.raises(objects.Gone):
            objects.changes_since(connection, self.version + ahead)

    # -- the model --------------------------------------------------------------------

    def write(self, act):
        with self.database.write() as connection:
            return act(connection)

    def read_one(self, key):
        with self.database.read() as connection:
            return objects.get(connection, key)

    def changes(self, type_, key):
        self.version += 1
        self.log.append((self.version, type_, key))
        if self.version % 100 == 0:
            self.log = [entry for entry in self.log if entry[0] > self.version - CHANGES_KEPT]
        return self.version

    def is_protected(self, key):
        return self.things[key].annotations.get(PROTECT_ANNOTATION) == "true"

    def family(self, key):
        """Return what a removal of ``key`` reaches: below a finalizer nothing happens yet."""
        if key not in self.things:
            return []
        reached = [key]
        if not self.things[key].finalizers:
            for child in KEYS:
                if child in self.things and self.things[child].owner_uid == self.things[key].uid:
                    reached += self.family(child)
        return reached

    def model_removes(self, key):
        thing = self.things[key]
        if not thing.finalizers:
            self.changes("DELETED", key)
            del self.things[key]
        elif thing.deleted_at is None:
            version = self.changes("MODIFIED", key)
            self.things[key] = replace(thing, deleted_at=9.0, version=version)

    @invariant()
    def the_store_is_the_model(self):
        with self.database.read() as connection:
            assert objects.resource_version(connection) == self.version
            records = {record.key: record for record in objects.listed(connection)}
        assert {key: as_thing(record) for key, record in records.items()} == self.things
        for record in records.values():
            assert record.status.observed_generation <= record.generation


def as_tuple(change):
    return change.resource_version, change.type, change.key


def as_thing(record):
    return Thing(
        record.uid,
        record.spec,
        record.resource_version,
        record.generation,
        record.status,
        record.wanted_digest,
        record.annotations,
        record.finalizers,
        record.owner_uid,
        record.deletion_timestamp,
    )


TestStoreAgainstModel = StoreAgainstModel.TestCase
