"""What a user names to be written: whole or not at all, in words, and what stands there stays."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from loopscope.state import destinations
from loopscope.state.destinations import told_of, write_whole
from loopscope.state.failures import TerminalFailure


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def words(text="new"):
    return lambda: text


def test_an_older_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    place = tmp_path / "page.html"
    place.write_text("old")
    assert write_whole(place, words()) == place
    assert place.read_text() == "new" and names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_where_the_disk_refuses_the_older_file_stays_and_the_message_names_it(
    tmp_path, monkeypatch, number
):
    place = tmp_path / "page.html"
    place.write_text("old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(destinations, "durable_replace", refuse)
    with pytest.raises(TerminalFailure, match=f"BadDestination: {place} ") as told:
        write_whole(place, words())
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert ("bytes are free" in str(told.value)) is full
    assert place.read_text() == "old" and names(tmp_path) == ["page.html"]


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "page.html", tmp_path / "latest.html"
    link.symlink_to("kept/page.html")
    for text in ("first", "second"):
        write_whole(link, words(text))
        assert link.is_symlink() and target.read_text() == text
    assert names(target.parent) == ["page.html"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    """A rename over a device would take it away from everybody, for root even ``/dev/null``."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, words())
    reader.join()
    assert read == ["new"] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["", "nowhere/page.html", "file/page.html"])
def test_a_place_that_is_none_is_told_before_any_work(tmp_path, name):
    (tmp_path / "file").touch()
    before = names(tmp_path)
    with pytest.raises(TerminalFailure, match="BadDestination"):
        write_whole(tmp_path / name, lambda: pytest.fail("it was asked for"))
    assert names(tmp_path) == before


def test_what_could_not_be_read_is_not_called_a_bad_place(tmp_path):
    with (
        pytest.raises(TerminalFailure, match=r"bundle was not written: No such .*manifest"),
        told_of(tmp_path / "bundle"),
    ):
        (tmp_path / "manifest").read_text()
