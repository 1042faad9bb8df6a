"""A remembered hash is that of the file which lies there now, and of all of it."""

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from loopscope.inputs.errors import ResolutionPending
from loopscope.inputs.files import HashMemo

OLD = 10**18  # nanoseconds: 2001


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def later(monkeypatch):
    """All files are old enough to be remembered, whichever of their times is looked at."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 60 * 10**9)


@pytest.fixture
def memo(tmp_path, later):
    return HashMemo(tmp_path / "cache" / "hashes.json")


def old_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(OLD, OLD))
    return path


def replaced_by_name(path):
    """As ``rsync --times`` does: a new file with the old one's size and time."""
    new = old_file(path.with_name(".new"), b"two")
    new.replace(path)


def rewritten_in_place(path):
    path.write_bytes(b"longer")


def rewritten_later(path):
    path.write_bytes(b"two")


def led_elsewhere(path):
    new = old_file(path.parent.parent / "elsewhere", b"two")
    path.unlink()
    path.symlink_to(new)


@pytest.mark.parametrize(
    "change",
    [replaced_by_name, rewritten_in_place, rewritten_later, led_elsewhere],
    ids=lambda change: change.__name__,
)
def test_a_file_that_is_another_one_is_hashed_again(tmp_path, memo, change):
    path = old_file(tmp_path / "model" / "weights", b"one")
    assert memo.sha256(path) == sha256(b"one")
    assert memo.path.exists(), "it was remembered"
    change(path)
    assert memo.sha256(path) == sha256(path.read_bytes()) != sha256(b"one")


def twins(folder):
    """Make two files of one size whose times are all equal; only their inodes differ."""
    for number in range(10_000):
        paths = [old_file(folder / f"{which}-{number}" / "weights", which.encode())
                 for which in ("one", "two")]  # fmt: skip
        for path in paths:
            os.utime(path, ns=(OLD, OLD))
        first, second = (path.stat() for path in paths)
        if first.st_ctime_ns == second.st_ctime_ns:
            return paths
    pytest.fail("this file system gives no two files the same time")


def test_a_folder_that_was_swapped_for_a_twin_of_the_same_times_is_hashed_again(tmp_path, memo):
    one, two = twins(tmp_path / "made")
    place = tmp_path / "model"
    one.parent.rename(place)
    assert memo.sha256(place / "weights") == sha256(b"one")
    place.rename(tmp_path / "aside")
    two.parent.rename(place)
    assert memo.sha256(place / "weights") == sha256(b"two")


# -- while it is read ------------------------------------------------------------------------------


def while_reading(monkeypatch, path, act):
    """Let somebody act at the moment when ``path`` is opened to be read."""
    original, acted = io.open, []

    def opened(file, mode="r", *args, **options):
        stream = original(file, mode, *args, **options)
        if Path(str(file)) == path and "r" in mode and not acted:
            acted.append(True)
            act()
        return stream

    monkeypatch.setattr(io, "open", opened)
    return acted


def grown(path):
    with open(path, "ab") as stream:  # noqa: PTH123 - Path.open is what is watched
        stream.write(b"more")


def another_file(path):
    new = old_file(path.with_name(".new"), b"two")
    new.replace(path)


@pytest.mark.parametrize("change", [grown, another_file], ids=lambda change: change.__name__)
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_changes_while_it_is_hashed_is_asked_for_again(
    tmp_path, memo, monkeypatch, change, which
):
    """Also the first of several, once the second is being read."""
    files = [old_file(tmp_path / "model" / name, name.encode()) for name in ("a", "b")]
    with monkeypatch.context() as patch:
        acted = while_reading(patch, files[1], lambda: change(files[which]))
        with pytest.raises(ResolutionPending) as pending:
            memo.sha256(*files)
    assert acted and pending.value.reason == "InputChanging"
    assert not memo.path.exists(), "nothing was remembered of it"
    assert memo.sha256(*files) == sha256(*(file.read_bytes() for file in files))


def test_what_is_hashed_together_is_not_what_is_hashed_alone_or_the_other_way_round(tmp_path, memo):
    a, b = (old_file(tmp_path / "model" / name, name.encode()) for name in ("a", "b"))
    for _ in range(2):
        assert memo.sha256(a, b) == sha256(b"a", b"b")
        assert memo.sha256(b, a) == sha256(b"b", b"a")
        assert memo.sha256(a) == sha256(b"a")


def test_a_young_file_is_not_remembered(tmp_path):
    memo = HashMemo(tmp_path / "cache" / "hashes.json")
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert memo.sha256(path) == sha256(b"one")
    assert not memo.path.exists()
