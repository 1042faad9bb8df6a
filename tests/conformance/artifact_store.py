"""What any artifact store does. A new one passes this suite, whatever it keeps its bytes in.

Subclass ``StoreConformance`` as ``Test…`` and say how the store is opened and how its files are
harmed; ``test_artifact_stores.py`` does so for folders and for a toy.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.publication import verified_folder
from loopscope.state.artifacts.store import ArtifactStore, Corrupt, Differs, Stored
from loopscope.state.records import ArtifactRecord
from tests.simulated import Simulation, new_state

DIGEST, OTHER = "d" * 64, "e" * 64
PAYLOAD = {"table.parquet": b"rows", "deep/er/directions": b"tensors"}


class StoreConformance(ABC):
    """The suite. ``self.store`` is empty when a test starts."""

    @abstractmethod
    def opened(self, folder: Path) -> ArtifactStore:
        """Return the store of a folder; opened again, it holds what it held."""

    @abstractmethod
    def write(self, store: ArtifactStore, place: str, data: bytes | None) -> None:
        """Harm a store behind its back: put bytes at a place, or remove what lies there."""

    @abstractmethod
    def shard_place(self, digest: str, name: str) -> str:
        """Return where the bytes of a shard lie."""

    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "artifacts"
        self.store = self.opened(self.folder)

    # -- what the tests do -------------------------------------------------------------------

    def sealed(
        self, digest: str = DIGEST, token: int = 1, payload: dict[str, bytes] | None = None,
        **told: Any,
    ) -> tuple[Path, ArtifactRecord]:  # fmt: skip
        staging = self.store.staging_folder(digest, token)
        for name, data in (PAYLOAD if payload is None else payload).items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(data)
        facts = {"stage": "mapping", "digest": digest, "metrics": {"n": 1}, "createdAt": 5.0}
        return staging, self.store.seal(staging, {**facts, **told})

    def published(self, digest: str = DIGEST, **told: Any) -> ArtifactRecord:
        staging, record = self.sealed(digest, **told)
        return self.store.publish(staging, record, self.store.prepare(staging, record))

    def harm(self, name: str, data: bytes | None, digest: str = DIGEST) -> None:
        self.write(self.store, f"mapping/{digest}/{name}", data)

    def edit_manifest(self, **changes: Any) -> None:
        manifest = self.store.manifest("mapping", DIGEST)
        self.harm(MANIFEST, json.dumps({**manifest, **changes}).encode())

    def things(self, kind: str) -> list[Stored]:
        return [thing for thing in self.store.contents() if thing.kind == kind]

    def thing(self, kind: str) -> Stored:
        (found,) = self.things(kind)
        return found

    # -- put once ----------------------------------------------------------------------------

    def test_an_empty_store_holds_nothing(self):
        assert list(self.store.contents()) == []
        assert not self.store.holds("mapping", DIGEST) and self.store.published("mapping") == set()
        assert self.store.whole("mapping", DIGEST) is None
        with pytest.raises(Corrupt):
            self.store.record("mapping", DIGEST)

    def test_what_is_sealed_is_not_there_before_it_is_published(self):
        self.sealed()
        assert not self.store.holds("mapping", DIGEST) and self.things("artifact") == []

    def test_what_was_published_is_whole_also_for_who_opens_the_store_later(self):
        record = self.published()
        for store in (self.store, self.opened(self.folder)):
            store.verify(record)
            assert store.record("mapping", DIGEST) == record == store.whole("mapping", DIGEST)
            assert store.holds("mapping", DIGEST) and store.published("mapping") == {DIGEST}
            assert store.stands(record) and store.manifest("mapping", DIGEST)["metrics"] == {"n": 1}

    def test_a_fetched_artifact_lies_in_a_local_folder_with_its_manifest(self):
        folder = self.store.fetch(self.published())
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert found == {*PAYLOAD, MANIFEST}
        assert {name: (folder / name).read_bytes() for name in PAYLOAD} == PAYLOAD
        told = json.loads((folder / MANIFEST).read_text())
        assert told == self.store.manifest("mapping", DIGEST)

    def test_one_file_can_be_fetched(self):
        path = self.store.fetch_file(self.published(), "deep/er/directions")
        assert path.name == "directions" and path.read_bytes() == b"tensors"

    def test_a_new_staging_folder_is_empty_and_gone_once_it_is_published(self):
        (self.store.staging_folder(DIGEST, 1) / "left over").write_text("x")
        staging, record = self.sealed()
        assert set(record.files) == set(PAYLOAD)
        self.store.publish(staging, record)
        assert not staging.exists() and self.things("staging") == []

    def test_what_was_published_first_stays_when_equal_files_come(self):
        first = self.published()
        signature = self.store.signature(first)
        assert self.published(token=2, createdAt=9.0) == first
        assert self.store.signature(first) == signature and self.things("quarantine") == []
        assert self.store.record("mapping", DIGEST) == first and self.things("staging") == []

    @pytest.mark.parametrize("harmed", [b"rowz", b"ro", None])
    def test_what_is_damaged_gives_way_and_is_set_aside(self, harmed):
        self.published()
        self.harm("table.parquet", harmed)
        again = self.published(token=2, createdAt=9.0)
        self.store.verify(again)
        assert again.created_at == 9.0 and len(self.things("quarantine")) == 1

    def test_what_was_damaged_after_the_last_look_gives_way_too(self):
        self.published()
        staging, record = self.sealed(token=2, createdAt=9.0)
        earlier = self.store.prepare(staging, record)
        self.harm("table.parquet", b"rowz")
        self.store.verify(self.store.publish(staging, record, earlier))

    def test_other_files_under_the_same_digest_set_those_before_aside(self):
        self.published()
        again = self.published(token=2, payload={"table.parquet": b"other"})
        self.store.verify(again)
        assert len(self.things("quarantine")) == 1

    def test_making_durable_what_is_there_changes_nothing(self):
        record = self.published()
        for _ in range(2):
            self.store.make_durable(record)
        self.store.verify(record)

    # -- damage ------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("name", "data"),
        [("table.parquet", b"row"), ("table.parquet", None), (MANIFEST, None)],
    )
    def test_what_shows_without_hashing_is_found_at_a_glance(self, name, data):
        record = self.published()
        self.harm(name, data)
        assert not self.store.stands(record)
        with pytest.raises(Corrupt):
            self.store.check_presence(record)

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            *(("table.parquet", data) for data in (b"rowz", b"row", b"", None)),
            *((MANIFEST, data) for data in (b"", b"null", b"{", b"\xff", None)),
        ],
    )
    def test_damage_of_any_kind_is_found_before_use(self, name, data):
        record = self.published()
        self.harm(name, data)
        assert self.store.whole("mapping", DIGEST) is None
        for use in (self.store.verify, self.store.fetch):
            with pytest.raises(Corrupt):
                use(record)

    def test_a_changed_file_is_not_fetched_by_itself(self):
        record = self.published()
        self.harm("table.parquet", b"rowz")
        with pytest.raises(Corrupt):
            self.store.fetch_file(record, "table.parquet")
        assert self.store.fetch_file(record, "deep/er/directions").read_bytes() == b"tensors"

    @pytest.mark.parametrize("changes", [{"metrics": {"n": 2}}, {"stage": "steering"}])
    def test_an_edited_manifest_is_not_believed(self, changes):
        record = self.published()
        self.edit_manifest(**changes)
        with pytest.raises(Corrupt):
            self.store.verify(record)

    def test_another_artifact_than_the_recorded_one_differs(self):
        record = self.published()
        with pytest.raises(Differs):
            self.store.verify(replace(record, created_at=6.0))

    def test_verification_comes_in_slices_that_add_up(self):
        record = self.published()
        assert sum(self.store.verifying(record)) == record.bytes == sum(map(len, PAYLOAD.values()))

    def test_a_signature_stays_and_changes_with_any_file(self):
        record = self.published()
        before = self.store.signature(record)
        assert self.store.signature(record) == before
        self.harm("deep/er/directions", b"tensorz")
        assert self.store.signature(record) != before

    def test_what_is_set_aside_is_kept_beside_what_was_set_aside_before(self):
        for token in (1, 2):
            self.published(token=token)
            assert self.store.quarantine("mapping", DIGEST)
            assert not self.store.holds("mapping", DIGEST)
        assert not self.store.quarantine("mapping", DIGEST)
        found = self.things("quarantine")
        assert [thing.group for thing in found] == ["mapping"] * 2
        assert len({thing.place for thing in found}) == 2
        assert all(thing.bytes > sum(map(len, PAYLOAD.values())) for thing in found)

    # -- shards ------------------------------------------------------------------------------

    def test_a_sealed_shard_is_found_by_a_later_attempt(self):
        shards = self.store.shards(DIGEST)
        assert shards.sealed("part") is None and shards.names() == []
        path = shards.seal("part", lambda temporary: temporary.write_bytes(b"piece"))
        assert path.read_bytes() == b"piece"
        later = self.opened(self.folder).shards(DIGEST)
        found = later.sealed("part")
        assert found is not None and found.read_bytes() == b"piece" and later.names() == ["part"]
        assert self.store.shards(OTHER).sealed("part") is None

    def test_a_shard_that_another_worker_seals_meanwhile_is_found(self):
        ours = self.store.shards(DIGEST)
        ours.seal("first", lambda temporary: temporary.write_bytes(b"piece"))
        assert ours.sealed("second") is None
        theirs = self.opened(self.folder).shards(DIGEST)
        theirs.seal("second", lambda temporary: temporary.write_bytes(b"other"))
        found = ours.sealed("second")
        assert found is not None and found.read_bytes() == b"other"

    @pytest.mark.parametrize("harmed", [b"piecf", b"piec", b"", None])
    def test_a_harmed_shard_is_absent_and_can_be_sealed_again(self, harmed):
        shards = self.store.shards(DIGEST)
        for _ in range(2):
            shards.seal("part", lambda temporary: temporary.write_bytes(b"piece"))
            assert shards.sealed("part") is not None
            self.write(self.store, self.shard_place(DIGEST, "part"), harmed)
            assert shards.sealed("part") is None

    def test_a_shard_whose_writing_fails_is_absent(self):
        def half(temporary: Path) -> None:
            temporary.write_bytes(b"pie")
            raise OSError("planted")

        shards = self.store.shards(DIGEST)
        with pytest.raises(OSError, match="planted"):
            shards.seal("part", half)
        assert shards.sealed("part") is None and shards.names() == []

    def test_shards_go_with_their_action_and_with_no_other(self):
        for digest in (DIGEST, OTHER):
            self.store.shards(digest).seal("part", lambda part: part.write_bytes(b"piece"))
        assert {thing.name for thing in self.things("shards")} == {DIGEST, OTHER}
        assert self.store.worked_on() == {DIGEST, OTHER}
        for _ in range(2):
            self.store.discard_work(DIGEST)
        assert self.thing("shards").name == OTHER
        assert self.store.shards(OTHER).sealed("part") is not None
        self.store.discard_work(OTHER)
        assert self.things("shards") == [] and self.store.worked_on() == set()

    def test_what_attempts_left_behind_goes_unless_they_still_hold_their_job(self):
        for token in (1, 2):
            (self.store.staging_folder(DIGEST, token) / "x").write_bytes(b"half")
        self.store.discard_staging(keep_tokens={2})
        left = self.thing("staging")
        assert left.name == f"{DIGEST}-2" and left.bytes == 4
        for _ in range(2):
            self.store.remove(left)
        assert self.things("staging") == []

    def test_who_knows_an_older_state_of_things_leaves_what_came_after_it(self):
        """A controller that was stopped, and that another one has followed, may still collect."""
        for token in (1, 3):
            (self.store.staging_folder(DIGEST, token) / "x").write_bytes(b"half")
        self.store.discard_staging(keep_tokens=set(), newest_token=2)
        assert self.thing("staging").name == f"{DIGEST}-3"

    # -- foreign things and the trash ----------------------------------------------------------

    def test_what_does_not_belong_there_is_seen_and_set_aside(self):
        record = self.published()
        self.write(self.store, "notes", b"mine")
        self.harm("notes", b"mine too")
        inside, beside = list(self.store.foreign_in(record)), self.things("foreign")
        assert [(one.place, one.bytes) for one in beside] == [("notes", 4)]
        assert [(one.place, one.bytes) for one in inside] == [(f"mapping/{DIGEST}/notes", 8)]
        for thing in (*beside, *inside) * 2:
            self.store.set_aside(thing)
        assert list(self.store.foreign_in(record)) == [] and self.things("foreign") == []
        assert len(self.things("quarantine")) == 2
        self.store.verify(record)

    def test_what_is_thrown_away_is_gone_and_comes_back_whole(self):
        record = self.published()
        for _ in range(2):
            self.store.throw_away(self.things("artifact")[0], now=7.0)
            assert not self.store.holds("mapping", DIGEST)
            thrown = self.thing("trash")
            assert (thrown.group, thrown.name, thrown.since) == ("mapping", DIGEST, 7.0)
            assert self.store.take_back("mapping", DIGEST)
            self.store.verify(record)
            assert not self.store.take_back("mapping", DIGEST) and self.things("trash") == []

    def test_throwing_away_twice_keeps_what_was_thrown_away(self):
        self.published()
        thing = self.thing("artifact")
        self.store.throw_away(thing, now=7.0)
        self.store.throw_away(thing, now=8.0)
        assert self.thing("trash").since == 7.0

    def test_what_lies_in_its_place_is_not_overwritten_by_what_comes_back(self):
        self.published()
        self.store.throw_away(self.thing("artifact"), now=7.0)
        newer = self.published(token=2, createdAt=9.0)
        assert not self.store.take_back("mapping", DIGEST)
        assert self.store.record("mapping", DIGEST) == newer
        self.store.throw_away(self.thing("artifact"), now=8.0)
        assert self.thing("trash").since == 8.0, "the newer one took the place of the older"

    def test_what_has_no_manifest_does_not_come_back(self):
        self.published()
        self.harm(MANIFEST, None)
        self.store.throw_away(self.thing("artifact"), now=7.0)
        assert not self.store.take_back("mapping", DIGEST)

    def test_emptying_takes_what_is_old_enough_and_nothing_younger(self):
        for digest, now in ((DIGEST, 5.0), (OTHER, 7.0)):
            self.published(digest)
            self.store.throw_away(self.thing("artifact"), now=now)
        self.store.empty_trash(5.0)
        assert self.thing("trash").name == OTHER
        self.store.empty_trash(7.0)
        assert list(self.store.contents()) == []

    def test_shards_and_what_was_set_aside_can_be_thrown_away(self):
        self.store.shards(DIGEST).seal("part", lambda part: part.write_bytes(b"piece"))
        self.published()
        self.store.quarantine("mapping", DIGEST)
        for kind in ("shards", "quarantine"):
            self.store.throw_away(self.thing(kind), now=7.0)
            assert self.things(kind) == []
        assert len(self.things("trash")) == 2

    # -- with the database ---------------------------------------------------------------------

    def test_only_what_the_database_knows_is_used(self, tmp_path):
        state = replace(new_state(tmp_path / "state"), artifacts=self.store)
        record = self.published()
        with pytest.raises(Corrupt):
            verified_folder(state, "mapping", DIGEST)
        with state.database.write() as connection:
            artifact_index.record(connection, record)
        assert (verified_folder(state, "mapping", DIGEST) / "table.parquet").is_file()

    def test_an_experiment_settles_on_it_and_heals_what_is_harmed(self, tmp_path):
        world = Simulation(tmp_path / "state")
        world.state = world.workers.state = replace(world.state, artifacts=self.store)
        world.restart()
        world.apply()
        assert len(world.settle()) == 6
        assert world.resync() == [] and len(self.things("artifact")) == 6
        assert self.things("staging") == [] and self.things("shards") == []
        mapping = world.get("france-mapping").status.artifact
        assert mapping is not None
        self.write(self.store, f"mapping/{mapping.digest}/{MANIFEST}", None)
        assert world.resync() == ["mapping"]
        assert self.thing("quarantine").group == "mapping"
