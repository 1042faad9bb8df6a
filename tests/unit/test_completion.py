"""Completion: the script of each shell, run by that shell, and what it is offered."""

import os
import shutil
import subprocess
import sys

import pytest

ASKING = {
    "bash": "source <(loopscope completion bash); COMP_WORDS=({words}); COMP_CWORD={place}; "
    '_loopscope_completion loopscope; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": "compdef() {{ : }}; _arguments() {{ print -l -- $@ }}; _files() {{ print files }}; "
    "source <(loopscope completion zsh); words=({words}); CURRENT={count}; _loopscope_completion",
    "fish": 'loopscope completion fish | source; complete -C "{words}"',
}
"""How each shell asks for the last word: bash and zsh as their line editors call the function."""
START = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}


@pytest.fixture(params=ASKING)
def offered(request, tmp_path, settled):
    """Return what a shell offers for the last of some words, with the state of ``settled``."""
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"no {request.param} on this machine")
    program = tmp_path / "bin" / "loopscope"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m loopscope "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    surroundings = {**os.environ, "PATH": path, "LOOPSCOPE_STATE": str(tmp_path / "state")}

    def ask(words):
        count = len(words.split())
        text = ASKING[request.param].format(words=words, place=count - 1, count=count)
        done = subprocess.run(
            [shell, *START[request.param], text],
            capture_output=True, text=True, env=surroundings, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout

    return ask


def test_commands_options_kinds_and_names_are_offered(offered):
    assert "describe" in offered("loopscope desc")
    assert "--selector" in offered("loopscope get --sel")
    assert "experiment" in offered("loopscope get expe")
    assert "france-mapping" in offered("loopscope get mapping fr")
    assert "mapping/france-mapping" in offered("loopscope describe mapping/fr")


def test_names_are_those_of_the_state_that_was_named(offered, tmp_path):
    assert "france" not in offered(f"loopscope --state {tmp_path / 'empty'} get exp fr")
    assert not (tmp_path / "empty").exists()


def test_a_shell_without_a_script_is_refused(loopscope):
    code, _, err = loopscope("completion", "tcsh")
    assert code == 2 and "bash, zsh, fish" in err


def test_completing_a_word_of_a_command_imports_no_other_command(tmp_path):
    script = (
        "import sys, loopscope.cli\n"
        "try: loopscope.cli.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('loopscope.commands.applying.apply')])"
    )
    surroundings = {
        **os.environ, "_LOOPSCOPE_COMPLETE": "complete_bash",
        "COMP_WORDS": "loopscope\nget\nexp", "COMP_CWORD": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=surroundings,
        cwd=tmp_path, check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "exp" and done.stdout.endswith("[]\n")
