"""The log of a worker: copied as it comes, cut, and quoted when the worker has died."""

import os

import pytest

from loopscope.controller.jobs import worker_log
from loopscope.controller.jobs.worker_log import LAST_LINE_CHARACTERS_MAX, WorkerLog
from loopscope.state.workers import log_before


@pytest.fixture
def logged(tmp_path):
    """Return a function that lets a worker print parts; returns its log, closed."""

    def of(*parts):
        read, write = os.pipe()
        log = WorkerLog(tmp_path / "worker.log", os.fdopen(read, "rb"))
        for part in parts:
            os.write(write, part)
        os.close(write)
        log._thread.join()
        return log

    return of


@pytest.mark.parametrize(
    ("printed", "last"),
    [
        (b"one\ntwo\n\n  \n", "two"),
        (b"  said \xff at last ", "said \ufffd at last"),
        (b"", ""),
        (b"\n\n", ""),
        (b"x" * 999 + b"end", "x" * (LAST_LINE_CHARACTERS_MAX - 3) + "end"),
    ],
)
def test_the_last_words_of_a_worker_are_its_last_line_that_is_not_blank(logged, printed, last):
    assert logged(printed).last_line() == last


def test_a_log_that_grows_too_large_moves_aside_in_the_place_of_the_one_before(
    logged, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker_log, "LOG_BYTES_MAX", 10)
    path = tmp_path / "worker.log"
    path.write_bytes(b"12345")
    logged(b"67890")
    assert path.read_bytes() == b"1234567890" and not log_before(path).exists()
    logged(b"x")
    assert (path.read_bytes(), log_before(path).read_bytes()) == (b"x", b"1234567890")


def test_a_log_that_was_removed_is_begun_again_and_a_lost_folder_stops_nobody(logged, tmp_path):
    (tmp_path / "worker.log").mkdir()
    assert logged(b"said\n").last_line() == "said"
