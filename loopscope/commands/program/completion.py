"""``completion``: the script that lets a shell complete commands, options and names of objects."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from loopscope.context import CommandError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LOOPSCOPE_COMPLETE"
"""The script sets it when it asks the program; typer derives the name from the program's."""

EXAMPLES = {
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/loopscope",
        "completion zsh > ~/.zfunc/_loopscope",
        "completion fish > ~/.config/fish/completions/loopscope.fish",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("completion")(completion)


def completion(
    shell: Annotated[
        str, typer.Argument(help=" or ".join(SHELLS) + ".", autocompletion=lambda: SHELLS)
    ],
) -> None:
    """Print the completion script of a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in SHELLS:
        raise CommandError(f"no completion for {shell!r}; expected one of {', '.join(SHELLS)}")
    print(get_completion_script(prog_name="loopscope", complete_var=VARIABLE, shell=shell))


def asked_words() -> list[str] | None:
    """Return the words that a shell asks to have completed; None when none asks."""
    if not os.environ.get(VARIABLE):
        return None
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return line.split()[1:]
