"""Local copies of what lies in a bucket: a bound, and never one that is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loopscope.state.artifacts.bucket.copies import LocalCopies


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    return LocalCopies(tmp_path / "copies", bytes_max=100)


def kept(copies: LocalCopies, name: str, size: int, used_at: float) -> Path:
    coming = copies.new_folder()
    (coming / "file").write_bytes(b"x" * size)
    folder = copies.keep(coming, "artifacts", name)
    os.utime(folder, (used_at, used_at))
    return folder


def names(copies: LocalCopies) -> set[str]:
    return {path.name for path in (copies.root / "artifacts").iterdir()}


def test_what_was_used_longest_ago_makes_room(copies):
    for name, used_at in (("old", 2.0), ("oldest", 1.0), ("new", 3.0)):
        kept(copies, name, 30, used_at)
    copies.let_go()
    copies.make_room(10)
    assert names(copies) == {"old", "oldest", "new"}
    copies.make_room(20)
    assert names(copies) == {"old", "new"}
    copies.make_room(1000)
    assert names(copies) == set()


def test_use_makes_young(copies):
    for name, used_at in (("one", 1.0), ("two", 2.0)):
        kept(copies, name, 50, used_at)
    copies.let_go()
    assert copies.held("artifacts", "one") is not None
    copies.let_go()
    copies.make_room(50)
    assert names(copies) == {"one"}


def test_what_is_in_use_stays_in_this_process_and_in_others(copies):
    other = LocalCopies(copies.root, copies.bytes_max)
    for name, used_at in (("mine", 1.0), ("theirs", 2.0), ("nobody's", 3.0)):
        kept(copies, name, 40, used_at)
    copies.let_go()
    assert copies.held("artifacts", "mine") and other.held("artifacts", "theirs")
    copies.make_room(1000)
    assert names(copies) == {"mine", "theirs"}
    other.let_go()
    copies.make_room(1000)
    assert names(copies) == {"mine"}


def test_what_comes_is_not_taken_for_a_leftover_and_what_a_crash_left_is(copies):
    coming = copies.new_folder()
    (coming / "half").write_bytes(b"x" * 200)
    LocalCopies(copies.root, copies.bytes_max).make_room(0)
    assert coming.is_dir()
    copies.let_go()  # as the end of the process does
    LocalCopies(copies.root, copies.bytes_max).make_room(0)
    assert not coming.exists()


def test_what_takes_a_name_replaces_what_was_there(copies):
    for size in (1, 2):
        folder = kept(copies, "same", size, 1.0)
    assert (folder / "file").stat().st_size == 2
    copies.let_go()
    copies.make_room(1000)
    assert names(copies) == set() and list((copies.root / "going").iterdir()) == []


def test_a_copy_that_somebody_removed_is_not_there(copies):
    folder = kept(copies, "one", 1, 1.0)
    (folder / "file").unlink()
    folder.rmdir()
    assert copies.held("artifacts", "one") is None
    assert copies.held("artifacts", "never there") is None
