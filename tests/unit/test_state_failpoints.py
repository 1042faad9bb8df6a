"""Failpoints do nothing until they are switched on, and then what they are told."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from loopscope.state import failpoints


def test_a_place_that_nobody_switched_on_does_nothing():
    failpoints.reach("fsync")


def test_a_handler_sees_every_place_while_it_is_installed():
    seen: list[str] = []
    with failpoints.handled_by(seen.append):
        failpoints.reach("fsync")
        failpoints.reach("replace")
    failpoints.reach("fsync")
    assert seen == ["fsync", "replace"]


def test_the_environment_chooses_the_nth_arrival_and_the_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOPSCOPE_FAILPOINT", "work-discard:ENOSPC@2")
    monkeypatch.setenv("LOOPSCOPE_FAILPOINT_LOG", str(tmp_path / "reached"))
    failpoints.reach("work-discard")
    with pytest.raises(OSError, match="work-discard") as full:
        failpoints.reach("work-discard")
    failpoints.reach("work-discard")
    assert full.value.errno == errno.ENOSPC
    names = [line.split()[1] for line in (tmp_path / "reached").read_text().splitlines()]
    assert names == ["work-discard"] * 3


def test_a_misspelt_name_is_an_error(monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_FAILPOINT", "fsnyc")
    with pytest.raises(AssertionError, match="fsnyc"):
        failpoints.reach("fsync")


@pytest.mark.parametrize(
    ("order", "sent"),
    [("fsync", signal.SIGKILL), ("fsync:kill", signal.SIGKILL), ("fsync:stop", signal.SIGSTOP)],
)
def test_a_process_kills_or_stops_itself_where_it_is_told_to(monkeypatch, order, sent):
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    monkeypatch.setenv("LOOPSCOPE_FAILPOINT", order)
    failpoints.reach("fsync")
    assert signals == [(os.getpid(), sent)]
