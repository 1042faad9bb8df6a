"""Whoever stops reading ends a command as the shell expects: with 141, in silence."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from loopscope.terminal.outlet import Outlet, ReaderGone
from tests.integration.real import REPOSITORY
from tests.simulated import settled_experiment

COMMANDS = ["--help", "get exp", "get exp -o yaml", "describe exp france", "queue --all -o json"]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_whose_reader_is_gone_ends_with_141_and_no_word(tmp_path, words):
    settled_experiment(tmp_path / "state").state.database.close()
    assert ended(tmp_path, *words.split()) == (141, "")


def test_what_a_command_did_before_nobody_read_its_words_stays_done(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    assert ended(tmp_path, "delete", "exp", "france")[0] == 141
    assert simulation.objects() == []


def test_a_broken_pipe_is_no_error_of_ours_to_rich(tmp_path):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(ReaderGone):
        Console(file=Outlet(Closed())).print("anything")


def ended(folder, *words):
    """Run a command whose standard output nobody reads; return its exit status and errors."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "loopscope", "--state", str(folder / "state"), *words]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, cwd=REPOSITORY, check=False, text=True
    )
    os.close(writer)
    return done.returncode, done.stderr
