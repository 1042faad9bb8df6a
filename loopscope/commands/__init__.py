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
    plan,
    queue,
    rebuild,
    report,
    run,
    wait,
    why,
)


def register(app: typer.Typer) -> None:
    """Add every subcommand to the application, in the order in which help lists them."""
    for module in (
        run,
        plan,
        apply,
        explain,
        get,
        why,
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
