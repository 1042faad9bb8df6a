"""The ``loopscope`` command. Each subcommand lives in ``loopscope/commands``."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Collection
from io import TextIOWrapper
from typing import Annotated

import typer

from loopscope import commands
from loopscope.commands.command_line import Application, Group
from loopscope.commands.program.completion import VARIABLE, asked_words
from loopscope.context import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    STATE_FOLDER,
    CommandError,
    Globals,
)
from loopscope.specs.errors import InvalidSpec
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.failures import Failure
from loopscope.terminal.outlet import outlets
from loopscope.terminal.printable import printable


def application(words: Collection[str] = ()) -> typer.Typer:
    """Return the application with the subcommands that are among ``words``, or with all."""
    app = Application(
        cls=Group,
        name="loopscope",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Keep sparse-autoencoder experiments true to their spec.",
    )
    app.callback()(_globals)
    commands.register(app, words)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # late: it brings the reader of e-mail

        print(f"loopscope {version('loopscope')}")
        raise typer.Exit


def _globals(
    context: typer.Context,
    state: Annotated[
        str,
        typer.Option(
            "--state",
            envvar="LOOPSCOPE_STATE",
            help="State folder, or the URL of a database on a server (kept in .loopscope).",
        ),
    ] = STATE_FOLDER,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts",
            envvar="LOOPSCOPE_ARTIFACTS",
            metavar="URL",
            help="Bucket for artifacts, as s3://bucket/prefix (kept in the state folder).",
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of named objects.")
    ] = "default",
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    given = {name for name in ("state", "namespace") if _is_typed(context, name)}
    context.obj = Globals(
        state, namespace, "state" in given, "namespace" in given, artifacts=artifacts
    )


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line; a default or a variable may be overruled."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def main() -> None:
    """Run the command; errors that a user can cause become one clear message."""
    if isinstance(sys.stdout, TextIOWrapper):  # a name that is not UTF-8 must not end a listing
        sys.stdout.reconfigure(errors="backslashreplace")
    with outlets():
        _run()


def _words(error: Exception) -> str:
    """Return what an error says; of one of the disk its file and the reason, without a number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _run() -> None:
    try:
        words = asked_words()
        words = sys.argv[1:] if words is None else words
        program = application([*words, "version"] if "--version" in words else words)
        if not gc.isenabled():  # see ``start``
            gc.freeze()
            gc.enable()
        program(complete_var=VARIABLE)
    except InvalidSpec as invalid:
        for problem in invalid.problems:
            print(printable(str(problem)), file=sys.stderr)
        print("nothing was applied", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except (CommandError, Failure, Corrupt, OSError) as error:
        print(printable(f"error: {_words(error)}"), file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
