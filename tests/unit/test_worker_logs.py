"""The log of a worker: copied as it comes, cut, and quoted when the worker has died."""

import logging
import os

import pytest
import structlog

from loopscope.controller.jobs.worker_log import LAST_LINE_CHARACTERS_MAX, WorkerLog
from loopscope.logs import log_to_stderr
from loopscope.state import log_files
from loopscope.state.log_files import log_before


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
    monkeypatch.setattr(log_files, "LOG_BYTES_MAX", 10)
    path = tmp_path / "worker.log"
    path.write_bytes(b"12345")
    logged(b"67890")
    assert path.read_bytes() == b"1234567890" and not log_before(path).exists()
    logged(b"x")
    assert (path.read_bytes(), log_before(path).read_bytes()) == (b"x", b"1234567890")


def test_a_log_that_was_removed_is_begun_again_and_a_lost_folder_stops_nobody(logged, tmp_path):
    (tmp_path / "worker.log").mkdir()
    assert logged(b"said\n").last_line() == "said"


def test_lines_of_a_controller_are_kept_in_a_file_without_colours_and_within_a_size(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(log_files, "LOG_BYTES_MAX", 400)
    path = tmp_path / "controller.log"
    try:
        log_to_stderr(logging.INFO, "console", also=path)
        for number in range(20):
            structlog.get_logger().info("\x1b[31mred\x1b[0m", number=number)
    finally:
        structlog.reset_defaults()
    kept = log_before(path).read_text() + path.read_text()
    assert "number=19" in kept and "\x1b" not in kept and "number=0 " not in kept
    assert max(path.stat().st_size, log_before(path).stat().st_size) <= 400
    assert "number=0" in capsys.readouterr().err


def test_a_log_file_that_cannot_be_written_stops_nobody(tmp_path, capsys):
    try:
        log_to_stderr(logging.INFO, "json", also=tmp_path / "missing" / "controller.log")
        structlog.get_logger().info("said")
    finally:
        structlog.reset_defaults()
    assert "said" in capsys.readouterr().err
