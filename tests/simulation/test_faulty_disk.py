"""The disk that forgets: what it keeps and what it loses."""

from __future__ import annotations

import os

import pytest

from loopscope.state.files import durable_replace, fsync_path
from tests.simulation.faulty_disk import FaultyDisk


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("durable")
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        yield disk


def cut(disk):
    return disk.cut_power(lambda: False)


def test_what_was_there_and_what_was_forced_stays(disk):
    folder = disk.root / "old"
    (folder / "new.tmp").write_text("forced")
    durable_replace(folder / "new.tmp", folder / "new")
    assert cut(disk) == []
    assert {path.name for path in folder.iterdir()} == {"file", "new"}
    assert (folder / "new").read_text() == "forced"


def test_bytes_that_were_not_forced_are_gone_though_the_name_stays(disk):
    (disk.root / "old" / "file").write_text("changed")
    (disk.root / "old" / "new").write_text("new")
    fsync_path(disk.root / "old")
    assert len(cut(disk)) == 2
    assert [path.stat().st_size for path in sorted((disk.root / "old").iterdir())] == [0, 0]


def test_a_name_that_was_not_forced_is_gone(disk):
    (disk.root / "folder").mkdir()
    (disk.root / "folder" / "file").write_text("forced")
    fsync_path(disk.root / "folder" / "file")
    fsync_path(disk.root / "folder")
    assert cut(disk) == ["entry folder"]
    assert not (disk.root / "folder").exists()


def test_a_rename_that_was_not_forced_is_undone(disk):
    (disk.root / "old").rename(disk.root / "moved")
    cut(disk)
    assert (disk.root / "old" / "file").read_text() == "durable"
    assert not (disk.root / "moved").exists()


def test_what_happened_to_be_written_stays(disk):
    (disk.root / "new").write_text("lucky")
    assert disk.cut_power(lambda: True) == []
    assert (disk.root / "new").read_text() == "lucky"


def test_the_real_fsync_is_back_afterwards(tmp_path):
    real = os.fsync
    with FaultyDisk(tmp_path).watched():
        assert os.fsync is not real
    assert os.fsync is real
