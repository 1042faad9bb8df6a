"""Help: in groups, with examples that can be typed; plain where colour is not wanted."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest
import typer

from loopscope.cli import application
from loopscope.commands import GROUPS, MODULES

PROGRAM = typer.main.get_command(application())
EXAMPLES = {
    name: examples
    for module in MODULES
    for name, examples in import_module(f"loopscope.commands.{module}").EXAMPLES.items()
}
COMMANDS = {name for names in MODULES.values() for name in names}


def help_of(*words, **surroundings):
    """Return help as a process prints it, into a pipe."""
    kept = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
    return subprocess.run(
        [sys.executable, "-m", "loopscope", *words, "--help"],
        capture_output=True, text=True, check=True, env={**kept, **surroundings},
    ).stdout  # fmt: skip


def test_help_lists_the_commands_in_groups_and_each_in_one(loopscope):
    said = loopscope("--help")[1]
    places = [said.index(f"─ {title} ─") for title in GROUPS]
    assert places == sorted(places)


def test_every_command_has_an_example_and_no_example_is_of_another():
    assert set(EXAMPLES) == COMMANDS


@pytest.mark.parametrize("words", [text for found in EXAMPLES.values() for text in found])
def test_every_example_is_read_by_its_command(words):
    name, *rest = shlex.split(re.sub(r" [<>] .*", "", words))
    command = PROGRAM.commands[name]
    context = command.context_class(command, info_name=name)
    _, left, _ = command.make_parser(context).parse_args(args=rest)
    assert left == [] or hasattr(command, "commands")
    assert words in EXAMPLES[name]


def test_help_into_a_pipe_holds_no_colours_and_fits_a_narrow_terminal():
    said = help_of("get", COLUMNS="50")
    assert "\x1b" not in said
    assert "loopscope get experiments" in said
    assert max(map(len, said.splitlines())) <= 50


def test_no_color_is_heeded_by_help_and_by_the_log(monkeypatch):
    from loopscope import logs

    assert "\x1b[3" not in help_of("get", NO_COLOR="1", FORCE_COLOR="1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert logs._is_coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not logs._is_coloured()


def test_the_version_is_printed_by_the_command_and_by_the_option(loopscope):
    told = f"loopscope {version('loopscope')}\n"
    assert loopscope("version") == loopscope("--version") == (0, told, "")
    document = json.loads(loopscope("version", "-o", "json")[1])
    assert document["version"] == version("loopscope") and "mapping" in document["codeRevisions"]
    assert loopscope("version", "-o", "yaml")[0] == 2
