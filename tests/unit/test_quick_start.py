"""A command that only looks starts quickly: it imports what it needs, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

from loopscope.cli import application
from loopscope.commands import MODULES

HEAVY = (
    *("loopscope.specs.kinds", "loopscope.reconcilers.experiment", "psutil"),
    *("torch", "numpy", "pandas", "pyarrow", "jinja2", "watchfiles"),
    "sqlalchemy.dialects.postgresql",
)
LOOKING = (*HEAVY, "pydantic", "filelock", "loopscope.specs.texts", "loopscope.state.source_code")
WITHOUT_STATE = (*LOOKING, "sqlalchemy")
"""What a command needs not that is about the program, whatever is stored."""


def names(*words: str) -> list[str]:
    return list(get_command(application(words)).commands)


def test_each_module_adds_the_commands_that_it_is_listed_with():
    assert sorted(names()) == sorted(c for commands in MODULES.values() for c in commands)


@pytest.mark.parametrize("command", [c for commands in MODULES.values() for c in commands])
def test_a_command_that_is_named_is_there(command):
    assert command in names("--state", "folder", command, "-o", "json")


def test_what_is_no_command_gets_them_all():
    assert names("gett") == names()


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["get", "experiments"], LOOKING),
        (["get", "experiments,mappings", "x", "-o", "json"], LOOKING),
        (["describe", "capture", "x"], LOOKING),
        (["events"], LOOKING),
        (["version"], WITHOUT_STATE),
        (["--version"], WITHOUT_STATE),
        (["completion", "bash"], WITHOUT_STATE),
        (["api-resources"], WITHOUT_STATE),
        (["dictionaries"], WITHOUT_STATE),
        (["queue"], HEAVY),  # reads limits, which are checked by pydantic
    ],
)
def test_looking_imports_nothing_heavy(words, heavy, tmp_path):
    script = (
        "import sys, loopscope.cli\n"
        f"sys.argv = ['loopscope', '--state', {str(tmp_path / 's')!r}, *{words!r}]\n"
        "try: loopscope.cli.main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]"), done.stdout


def test_the_program_looks_for_garbage_once_it_has_started():
    script = (
        "import gc, sys, loopscope.start\n"
        "sys.argv = ['loopscope', 'version']\n"
        "try: loopscope.start.main()\n"
        "except SystemExit: pass\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("True True"), done.stdout


def test_a_page_needs_no_distributions_of_scipy():
    script = (
        "import sys, loopscope.reports.page.writing, loopscope.views.experiment\n"
        "print([name for name in ('scipy.stats', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]", "importing them takes as long as the rest of a report"


def test_a_server_holds_no_table_library_that_it_does_not_need():
    pytest.importorskip("uvicorn", reason="pip install '.[serve]'")
    script = (
        "import sys, loopscope.commands.process.serve, loopscope.server.application\n"
        "heavy = ('torch', 'numpy', 'pandas', 'pyarrow', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
