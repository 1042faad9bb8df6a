"""The subcommands, one module per group."""

from __future__ import annotations

import typer

from loopscope.commands import (
    apply,
    controller,
    delete,
    fsck,
    get,
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
        get,
        why,
        wait,
        queue,
        controller,
        report,
        delete,
        fsck,
        rebuild,
    ):
        module.register(app)
