"""Artifact folders: sealed, published, verified, set aside."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.manifests import (
    MANIFEST,
    _is_inside,
    content_digest,
    was_made_again,
)
from loopscope.state.artifacts.store import Corrupt
from tests.hand_built import artifact
from tests.simulated import new_state

DIGEST = "d" * 64
PAYLOAD = {"table.parquet": b"rows", "directions.safetensors": b"tensors"}


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "artifacts")


def sealed(store, payload=PAYLOAD, token=1, **manifest):
    staging = store.staging_folder(DIGEST, token)
    for name, data in payload.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(data)
    told = {"stage": "mapping", "digest": DIGEST, "metrics": {"n": 1}, "createdAt": 5.0}
    return staging, store.seal(staging, {**told, **manifest})


def published(store, **changes):
    staging, record = sealed(store, **changes)
    store.publish(staging, record)
    return record


def edit_manifest(store, edit):
    path = store.folder("mapping", DIGEST) / MANIFEST
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_published_artifact_is_whole_and_its_staging_is_gone(store):
    record = published(store)
    store.verify(record)
    assert store.record("mapping", DIGEST) == record
    folder = store.folder("mapping", DIGEST)
    assert {path.name for path in folder.iterdir()} == {*PAYLOAD, MANIFEST}
    assert list((store.root / ".staging").iterdir()) == []
    assert record.bytes == sum(map(len, PAYLOAD.values())) and record.metrics == {"n": 1}


def test_the_content_digest_covers_names_and_bytes_and_nothing_else(store):
    _, record = sealed(store)
    _, later = sealed(store, createdAt=99.0, device="cuda", metrics={"seconds": 3})
    assert later.content_digest == record.content_digest
    _, renamed = sealed(store, {"table2.parquet": b"rows", "directions.safetensors": b"tensors"})
    _, changed = sealed(store, {**PAYLOAD, "table.parquet": b"Rows"})
    digests = {r.content_digest for r in (record, renamed, changed)}
    assert len(digests) == 3


def test_an_artifact_may_hold_folders(store):
    record = published(store, payload={"deep/er/x.json": b"{}"})
    assert list(record.files) == ["deep/er/x.json"]
    store.verify(record)


def test_metrics_that_are_not_numbers_are_refused_before_anything_is_published(store):
    with pytest.raises(ValueError):
        sealed(store, metrics={"fvu": float("nan")})
    assert not (store.staging_folder(DIGEST, 2) / MANIFEST).exists()


def test_a_new_staging_folder_is_empty(store):
    (store.staging_folder(DIGEST, 1) / "left-over").write_text("x")
    assert list(store.staging_folder(DIGEST, 1).iterdir()) == []


# -- damage ------------------------------------------------------------------------------


def truncate(folder):
    (folder / "table.parquet").write_bytes(b"row")


def flip_a_bit(folder):
    (folder / "table.parquet").write_bytes(b"rowr")


def remove_a_file(folder):
    (folder / "table.parquet").unlink()


def remove_the_manifest(folder):
    (folder / MANIFEST).unlink()


def empty_the_manifest(folder):
    (folder / MANIFEST).write_text("")


HARMS = [
    truncate,
    flip_a_bit,
    remove_a_file,
    remove_the_manifest,
    empty_the_manifest,
    shutil.rmtree,
]


@pytest.mark.parametrize("harm", HARMS)
def test_damage_of_any_kind_is_found_by_a_verification(store, harm):
    record = published(store)
    harm(store.folder("mapping", DIGEST))
    with pytest.raises(Corrupt):
        store.verify(record)


@pytest.mark.parametrize(
    "harm", [harm for harm in HARMS if harm not in (flip_a_bit, empty_the_manifest)]
)
def test_damage_that_shows_without_hashing_is_found_at_once(store, harm):
    record = published(store)
    harm(store.folder("mapping", DIGEST))
    with pytest.raises(Corrupt):
        store.check_presence(record)


def set_hash(manifest):
    manifest["files"]["table.parquet"]["sha256"] = "0" * 64


def set_hash_and_digest(manifest):
    set_hash(manifest)
    manifest["contentDigest"] = content_digest(manifest["files"])


@pytest.mark.parametrize("edit", [set_hash, set_hash_and_digest])
def test_an_edited_manifest_does_not_pass(store, edit):
    record = published(store)
    edit_manifest(store, edit)
    with pytest.raises(Corrupt):
        store.verify(record)


@pytest.mark.parametrize(
    "edit",
    [
        set_hash,
        lambda m: m.update(stage="steering"),
        lambda m: m.update(digest="e" * 64),
        lambda m: m.update(files=[]),
        lambda m: m.update(files={"table.parquet": "x"}),
        lambda m: m.update(files={"table.parquet": {}}),
        lambda m: m.pop("files"),
        lambda m: m.pop("metrics"),
        lambda m: m.pop("contentDigest"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_corrupt_not_a_crash(store, edit):
    published(store)
    edit_manifest(store, edit)
    with pytest.raises(Corrupt):
        store.record("mapping", DIGEST)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", "[" * 100_000])
def test_a_manifest_that_is_no_object_is_corrupt_not_a_crash(store, text):
    published(store)
    (store.folder("mapping", DIGEST) / MANIFEST).write_text(text)
    with pytest.raises(Corrupt):
        store.record("mapping", DIGEST)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", ".."])
def test_a_manifest_cannot_point_outside_its_folder(store, name):
    published(store)

    def point_outside(manifest):
        manifest["files"] = {name: {"sha256": "0" * 64, "bytes": 1}}
        manifest["contentDigest"] = content_digest(manifest["files"])

    edit_manifest(store, point_outside)
    with pytest.raises(Corrupt):
        store.record("mapping", DIGEST)


# -- publishing twice ----------------------------------------------------------------------


def test_publishing_over_a_valid_artifact_keeps_the_first(store):
    first = published(store)
    inode = store.folder("mapping", DIGEST).stat().st_ino
    staging, second = sealed(store, token=2, createdAt=9.0)
    store.publish(staging, second)
    assert store.folder("mapping", DIGEST).stat().st_ino == inode
    assert store.record("mapping", DIGEST) == first
    assert not staging.exists()


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, remove_the_manifest])
def test_publishing_over_a_corrupt_artifact_sets_it_aside_and_takes_its_place(store, harm):
    published(store)
    harm(store.folder("mapping", DIGEST))
    record = published(store, token=2)
    store.verify(record)
    assert len(list((store.root / ".quarantine" / "mapping").iterdir())) == 1


def test_corrupt_artifacts_are_set_aside_side_by_side(store):
    for token in (1, 2):
        published(store, token=token)
        assert store.quarantine("mapping", DIGEST)
        assert not store.folder("mapping", DIGEST).exists()
    aside = list((store.root / ".quarantine" / "mapping").iterdir())
    assert len(aside) == 2 and all((path / MANIFEST).is_file() for path in aside)
    assert not store.quarantine("mapping", DIGEST)


def test_what_was_set_aside_lies_there_since_then_whenever_it_was_made(store):
    published(store)
    os.utime(store.folder("mapping", DIGEST), (5.0, 5.0))
    store.quarantine("mapping", DIGEST)
    (thing,) = store.contents()
    assert (thing.kind, thing.group) == ("quarantine", "mapping")
    assert thing.since > 1_000_000_000, "the date of now, not that of the folder"


def test_what_lies_in_a_store_is_listed_by_its_place(store):
    for stage, digest in (("mapping", "b"), ("capture", "c"), ("mapping", "a"), ("capture", "d")):
        (store.root / stage / (digest * 64)).mkdir(parents=True)
    places = [thing.place for thing in store.contents()]
    assert len(places) == 4 and places == sorted(places)


def test_shards_of_a_published_action_are_removed_and_no_others(store):
    for digest in (DIGEST, "e" * 64):
        store.work_folder(digest).mkdir(parents=True)
    store.discard_work(DIGEST)
    store.discard_work(DIGEST)
    assert not store.work_folder(DIGEST).exists() and store.work_folder("e" * 64).is_dir()


def test_the_index_gives_back_what_was_recorded_and_forgets(store, tmp_path):
    database = new_state(tmp_path / "state").database
    record = published(store)
    with database.write() as connection:
        for _ in range(2):
            artifact_index.record(connection, record)
        assert artifact_index.listed(connection) == [record]
        artifact_index.forget(connection, DIGEST)
        assert artifact_index.get(connection, DIGEST) is None


def test_a_manifest_with_something_that_is_no_number_is_refused(store):
    with pytest.raises(ValueError, match="JSON compliant"):
        sealed(store, metrics={"n": float("nan")})


def test_only_a_whole_artifact_of_other_files_or_of_the_same_numbers_was_made_again():
    recorded = artifact("mapping", "d", metrics={"n": 1}, table_parquet="a")
    other_files = artifact("mapping", "d", metrics={"n": 2}, table_parquet="b")
    assert was_made_again(recorded, other_files)
    assert was_made_again(recorded, replace(recorded, created_at=9.0))
    assert not was_made_again(recorded, replace(recorded, metrics={"n": 2}))
    assert not was_made_again(recorded, None)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a", True), ("a/b", True), ("..a/b..", True), ("../a", False), ("a/../b", False),
        ("a/..", False), ("/a", False), ("a//b", False), ("a\0b", False), ("a\udc80", False),
    ],
)  # fmt: skip
def test_a_manifest_names_only_files_inside_of_its_folder(name, inside):
    assert _is_inside(name) is inside
