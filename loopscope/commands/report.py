"""``report`` and ``export``: what came out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from loopscope.context import CommandError, find_experiment, find_one
from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.views.present import present


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report")(report)
    app.command("export")(export)


def report(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="An experiment, a sweep, several of them, or a folder of specs."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the HTML file.")
    ] = None,
) -> None:
    """Write one self-contained HTML file about an experiment, or about several verdicts."""
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        found = [one for name in names for one in _named(connection, context.obj.namespace, name)]
        asked = present(connection, list({record.key: record for record in found}.values()))
        single = len(names) == 1 and len(asked) == 1 and asked[0].key.name == names[0]
    title = names[0] if len(names) == 1 else "several"
    path = output or context.obj.state_path / "reports" / f"{Path(title).resolve().name}.html"
    if output is None:
        with contextlib.suppress(PermissionError):  # the refusal below has the remedy
            path.parent.mkdir(exist_ok=True)
    print(f"report: {_one(state, asked[0], path) if single else _several(title, asked, path)}")


def _named(connection: Connection, namespace: str, name: str) -> list[ObjectRecord]:
    """Return the experiments that a word stands for: itself, a sweep's cells, a folder's."""
    exact = objects.get(connection, Key("Experiment", namespace, name))
    folder = Path(name)
    if exact is None and folder.is_dir():
        roots = [
            record
            for record in objects.listed(connection, "Experiment", namespace)
            if record.owner is None and _lies_in(record, folder.resolve())
        ]
        if not roots:
            raise CommandError(f"no experiment was applied from a file in {folder.resolve()}", 1)
    else:
        roots = [find_one(connection, "Experiment", namespace, name)]
    return [
        one
        for root in roots
        for one in (objects.owned_by(connection, root.uid) if "matrix" in root.spec else [root])
    ]


def _lies_in(record: ObjectRecord, folder: Path) -> bool:
    source = record.annotations.get(SOURCE_ANNOTATION)
    return source is not None and Path(source).resolve().is_relative_to(folder)


def _one(state: StateFolder, record: ObjectRecord, path: Path) -> Path:
    from loopscope.reports.page.writing import (
        write_report,  # late: tables and templates take a second
    )
    from loopscope.views.experiment import ExperimentView

    return write_report(ExperimentView.load(state, record.key), path)


def _several(title: str, records: list[ObjectRecord], path: Path) -> Path:
    from loopscope.reports.page.writing import write_several
    from loopscope.views.several import several

    found = several(records)
    if found is None:
        names = ", ".join(record.key.name for record in records) or "none yet"
        raise CommandError(
            f"{title} holds fewer than two experiments with a steering part, so there is nothing "
            f"to correct or to pool; name one of them: {names}"
        )
    return write_several(title, found, path)


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
    from loopscope.reports.bundle import export_bundle
    from loopscope.views.experiment import ExperimentView

    state = context.obj.open_to_read()
    with state.database.read() as connection:
        key = find_experiment(connection, context.obj.namespace, name).key
    export_bundle(ExperimentView.load(state, key), directory, allow_partial=partial)
    print(f"bundle: {directory}")
