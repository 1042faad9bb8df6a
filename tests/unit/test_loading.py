"""A command loads what tables need without looking for garbage, and leaves no trace of it."""

import gc
import os

import pytest

from loopscope.commands.loading import THREADS, for_small_sums


def test_one_thread_is_asked_for_while_libraries_load_and_not_behind_that(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    with for_small_sums():
        assert os.environ[THREADS] == "1" and not gc.isenabled()
    assert THREADS not in os.environ and gc.isenabled()


def test_a_number_of_threads_that_somebody_set_stays(monkeypatch):
    monkeypatch.setenv(THREADS, "7")
    with for_small_sums():
        assert os.environ[THREADS] == "7"
    assert os.environ[THREADS] == "7"


def test_a_library_that_is_missing_leaves_all_as_it_was(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    with pytest.raises(ImportError), for_small_sums():
        raise ImportError("no pandas")
    assert THREADS not in os.environ and gc.isenabled()


def test_who_looks_for_no_garbage_goes_on_so():
    gc.disable()
    try:
        with for_small_sums():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
