"""A file is hashed once, and again after every change, whatever time it says it is from."""

import hashlib
import json
import os
import time

import pytest

from loopscope.inputs.files import HashMemo


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def a_minute_later(monkeypatch):
    """Let every file that the test makes be a minute old."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60 * 10**9)


def test_a_file_is_hashed_once_until_it_changes(tmp_path, a_minute_later):
    path, cache = tmp_path / "weights", tmp_path / "cache" / "hashes.json"
    path.write_bytes(b"one")
    assert HashMemo(cache).sha256(path) == sha256(b"one")
    remembered = json.loads(cache.read_text())
    assert list(remembered.values()) == [sha256(b"one")]
    cache.write_text(json.dumps(dict.fromkeys(remembered, "f" * 64)))
    assert HashMemo(cache).sha256(path) == "f" * 64, "the second time it is not read again"
    path.write_bytes(b"two")
    assert HashMemo(cache).sha256(path) == sha256(b"two")


def test_a_file_that_may_still_change_within_one_tick_is_not_remembered(tmp_path):
    path, cache = tmp_path / "weights", tmp_path / "cache" / "hashes.json"
    path.write_bytes(b"one")
    os.utime(path, ns=(10**18, 10**18))  # that it says to be old is no evidence
    assert HashMemo(cache).sha256(path) == sha256(b"one")
    assert not cache.exists()


def test_other_bytes_under_the_old_size_time_and_inode_are_hashed_again(tmp_path, a_minute_later):
    """What ``rsync --inplace --times``, ``cp -p`` and ``tar --overwrite`` leave."""
    path, memo = tmp_path / "weights", HashMemo(tmp_path / "hashes.json")
    path.write_bytes(b"one")
    before = path.stat()
    assert memo.sha256(path) == sha256(b"one")
    with path.open("r+b") as stream:
        stream.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        3,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert memo.sha256(path) == sha256(b"two")


@pytest.mark.parametrize("damage", [b"", b"[]", b"[" * 100_000, b'{"a": 3}', b"\xff"])
def test_a_damaged_memory_of_hashes_costs_only_a_second_hashing(tmp_path, damage):
    path, cache = tmp_path / "weights", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    cache.write_bytes(damage)
    assert HashMemo(cache).sha256(path) == sha256(b"one")


def test_a_cache_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert HashMemo(tmp_path / "file" / "hashes.json").sha256(path) == sha256(b"one")


def test_many_hashes_are_looked_up_by_one_reading_of_the_memory(
    tmp_path, a_minute_later, monkeypatch
):
    """Applying a thousand specs asks for thousands."""
    path, cache = tmp_path / "weights", tmp_path / "hashes.json"
    path.write_bytes(b"one")
    HashMemo(cache).sha256(path)
    memo, reads = HashMemo(cache), []
    read = memo._read
    monkeypatch.setattr(memo, "_read", lambda: reads.append(1) or read())
    for _ in range(3):
        assert memo.sha256(path) == sha256(b"one")
    assert len(reads) == 1
    other = tmp_path / "other"
    other.write_bytes(b"two")
    assert HashMemo(cache).sha256(other) == sha256(b"two"), "by another process"
    assert memo.sha256(other) == sha256(b"two") and len(reads) == 2
    assert set(json.loads(cache.read_text()).values()) == {sha256(b"one"), sha256(b"two")}
