"""``report``: what came out, as a page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.loading import for_small_sums
from loopscope.commands.object_words import complete_experiment
from loopscope.commands.results.sweep_page import chains_of, replicated_by, sweep_named
from loopscope.context import CommandError, experiment_names, find_one, study_named
from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.views.present import present

EXAMPLES = {
    "report": ("report france", "report france rome -o both.html", "report study/animals"),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="An experiment, a sweep, several of them, a folder of specs, or study/NAME.",
            autocompletion=complete_experiment,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the HTML file.")
    ] = None,
) -> None:
    """Write one self-contained HTML file about an experiment, a sweep, a study or verdicts."""
    named = study_named(words)
    if named is not None:
        _study(context, named, output)
        return
    names = experiment_names(words, "report")
    state = context.obj.open_to_read()
    with state.database.read() as connection:
        found = [one for name in names for one in _named(connection, context.obj.namespace, name)]
        asked = present(connection, list({record.key: record for record in found}.values()))
        single = len(names) == 1 and len(asked) == 1 and asked[0].key.name == names[0]
        sweep = (
            sweep_named(connection, context.obj.namespace, names[0]) if len(names) == 1 else None
        )
    title = names[0] if len(names) == 1 else "several"
    path = output or _usual_place(context, Path(title).resolve().name)
    if sweep is not None:
        from loopscope.reports.page.writing import write_sweep  # late: templates take a second

        replicated = replicated_by(state, context.obj.namespace, names[0])
        print(f"report: {write_sweep(sweep, path, chains_of(state, asked), replicated)}")
    elif single:
        print(f"report: {_one(state, asked[0], path)}")
    else:
        print(f"report: {_several(title, asked, path)}")


def _usual_place(context: typer.Context, name: str) -> Path:
    path: Path = context.obj.state_path / "reports" / f"{name}.html"
    with contextlib.suppress(PermissionError):  # who writes there is refused with the remedy
        path.parent.mkdir(exist_ok=True)
    return path


def _study(context: typer.Context, name: str, output: Path | None) -> None:
    from loopscope.reports.page.writing import write_study  # late: templates take a second
    from loopscope.views.studies import load_study

    state = context.obj.open_to_read()
    with state.database.read() as connection:
        key = find_one(connection, "Study", context.obj.namespace, name).key
        study = load_study(connection, key)
    print(f"report: {write_study(study, output or _usual_place(context, f'study-{name}'))}")


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
    with for_small_sums():  # late: tables and templates take a second
        from loopscope.commands.results.labels import described
        from loopscope.reports.page.writing import write_report
        from loopscope.views.experiment import ExperimentView

    view = ExperimentView.load(state, record.key)
    return write_report(view, path, described(view))


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
