"""A command that only looks starts quickly: it imports what it needs, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

from loopscope.cli import application
from loopscope.commands import MODULES

HEAVY = ("loopscope.specs.kinds", "torch", "numpy", "pandas", "pyarrow", "jinja2", "watchfiles")


def names(*words: str) -> list[str]:
    return list(get_command(application(words)).commands)


def test_each_module_adds_the_commands_that_it_is_listed_with():
    assert names() == [command for commands in MODULES.values() for command in commands]


@pytest.mark.parametrize("command", [c for commands in MODULES.values() for c in commands])
def test_a_command_that_is_named_is_there(command):
    assert command in names("--state", "folder", command, "-o", "json")


def test_what_is_no_command_gets_them_all():
    assert names("gett") == names()


@pytest.mark.parametrize("words", [["get", "experiments"], ["describe", "capture", "x"], ["queue"]])
def test_looking_imports_nothing_heavy(words, tmp_path):
    script = (
        "import sys, loopscope.cli\n"
        f"sys.argv = ['loopscope', '--state', {str(tmp_path / 's')!r}, *{words!r}]\n"
        "try: loopscope.cli.main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]"), done.stdout
