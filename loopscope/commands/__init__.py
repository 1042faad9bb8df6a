"""The subcommands, one module per group."""

from __future__ import annotations

import typer

from loopscope.commands import (
    apply,
    controller,
    delete,
    explain,
    fsck,
    gc,
    get,
    jobs,
    logs,
    pause,
    queue,
    rebuild,
    report,
    run,
    wait,
)


def register(app: typer.Typer) -> None:
    """Add every subcommand to the application, in the order in which help lists them."""
    for module in (
        run,
        apply,
        explain,
        get,
        wait,
        queue,
        pause,
        jobs,
        logs,
        controller,
        report,
        delete,
        gc,
        fsck,
        rebuild,
    ):
        module.register(app)
