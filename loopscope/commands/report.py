"""``report`` and ``export``: what came out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from loopscope.context import find_experiment


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    app.command("export")(export)


def report(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An experiment.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the HTML file.")
    ] = None,
) -> None:
    """Write one self-contained HTML file about an experiment."""
    from loopscope.reports.export import write_report  # late: tables and templates take a second
    from loopscope.reports.view import ExperimentView

    state = context.obj.open_to_read()
    with state.database.read() as connection:
        key = find_experiment(connection, context.obj.namespace, name).key
    path = output or context.obj.state_path / "reports" / f"{name}.html"
    if output is None:
        with contextlib.suppress(PermissionError):  # the refusal below says what to do
            path.parent.mkdir(exist_ok=True)
    print(f"report: {write_report(ExperimentView.load(state, key), path)}")


def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An experiment.")],
    directory: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Write what there is, also when stages are not finished."
        ),
    ] = False,
) -> None:
    """Write the evidence bundle: spec, manifests, tables, report."""
    from loopscope.reports.export import export_bundle
    from loopscope.reports.view import ExperimentView

    state = context.obj.open_to_read()
    with state.database.read() as connection:
        key = find_experiment(connection, context.obj.namespace, name).key
    export_bundle(ExperimentView.load(state, key), directory, allow_partial=partial)
    print(f"bundle: {directory}")
