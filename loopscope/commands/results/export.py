"""``export``: what came out, to be taken elsewhere: a bundle, or the vector of one arm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.commands.options import DeviceOption
from loopscope.context import (
    CommandError,
    Globals,
    experiment_names,
    find_experiment,
    find_one,
    study_named,
)
from loopscope.specs.keys import Key
from loopscope.specs.vectors import FORMATS
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder

if TYPE_CHECKING:
    from loopscope.views.sweeps import Sweep

VECTOR = "vector"
EXAMPLES = {
    "export": (
        "export experiment/france bundle/france",
        "export sweep sweep-folder",
        "export study/animals animals",
        "export vector experiment/france --arm multi france-multi.safetensors",
        "export vector steering/france-steering --arm fine --format gguf france-fine.gguf",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[vector] NAME",
            help="An experiment, a sweep or study/NAME; behind the word vector also a steering.",
            autocompletion=complete_experiment,
        ),
    ],
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A folder that does not exist yet; of a vector, such a file."
        ),
    ],
    partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Write what there is, also when stages are not finished."
        ),
    ] = False,
    arm: Annotated[
        str | None, typer.Option("--arm", help="Whose vector: coarse, fine, multi, random-0, …")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="In the steering's unit; default: its largest."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--format", help=f"Of the vector: {', '.join(FORMATS)}. Default: the first."),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Write the evidence bundle of an experiment, or the vector of one of its arms.

    The bundle holds spec, manifests, tables and report. That of a sweep holds its grid, its report
    and the bundle of each cell, that of a study the table of its concepts, its answer and report.
    The vector is one file that says what it
    is, what it does and how to see that it is applied as it should be.
    """
    if words[0] == VECTOR and len(words) > 1:
        from loopscope.commands.results.vectors import write_vector_of

        if partial:
            raise CommandError("--allow-partial is about bundles; a vector is there or not")
        if arm is None:
            raise CommandError("name the arm whose vector is wanted: --arm multi")
        write_vector_of(context.obj, words[1:], path, arm, strength, layout, device)
        return
    of_vectors = {"--arm": arm, "--strength": strength, "--format": layout}
    given = [name for name, value in of_vectors.items() if value is not None]
    if given:
        raise CommandError(
            f"{', '.join(given)} is about a vector: loopscope export vector NAME --arm ARM FILE"
        )
    named = study_named(words)
    if named is not None:
        _write_study(context.obj, named, path)
        return
    _write_bundle(context.obj, words, path, allow_partial=partial)


def _write_study(given: Globals, name: str, directory: Path) -> None:
    from loopscope.reports.page.folders import write_study_folder
    from loopscope.views.studies import load_study

    with given.open_to_read().database.read() as connection:
        study = load_study(connection, find_one(connection, "Study", given.namespace, name).key)
    print(f"study: {write_study_folder(study, directory)}")


def _write_bundle(
    given: Globals, words: list[str], directory: Path, *, allow_partial: bool
) -> None:
    from loopscope.commands.results.sweep_page import sweep_named

    names = experiment_names(words, "export")
    if len(names) > 1:
        raise CommandError(f"export writes one experiment; found {' '.join(names)!r}")
    state = given.open_to_read()
    with state.database.read() as connection:
        sweep = sweep_named(connection, given.namespace, names[0])
        if sweep is None:
            key = find_experiment(connection, given.namespace, names[0]).key
    if sweep is not None:
        _write_sweep(state, given.namespace, sweep, directory, allow_partial=allow_partial)
        return
    _bundle_of(state, key, directory, allow_partial=allow_partial)
    print(f"bundle: {directory}")


def _write_sweep(
    state: StateFolder, namespace: str, sweep: Sweep, directory: Path, *, allow_partial: bool
) -> None:
    from loopscope.commands.results.sweep_page import chains_of, replicated_by
    from loopscope.reports.page.folders import SweepPages, write_sweep_folder
    from loopscope.reports.page.html import render_sweep

    with state.database.read() as connection:
        keys = [Key("Experiment", namespace, cell.name) for cell in sweep.cells]
        known = objects.get_all(connection, keys)
    if len(known) < len(keys) and not allow_partial:
        raise TerminalFailure(
            "NotReady",
            f"{len(keys) - len(known)} of {len(keys)} cells of {sweep.name} do not exist yet; wait "
            "until they are Ready, or export what there is with --allow-partial",
        )

    def bundle(key: Key) -> Callable[[Path], None]:
        return lambda folder: _bundle_of(state, key, folder, allow_partial=allow_partial)

    shown = sweep, chains_of(state, known), replicated_by(state, namespace, sweep.name)
    pages = SweepPages(render_sweep(*shown), render_sweep(*shown, explorable=False))
    bundles = {one.key.name: bundle(one.key) for one in known}
    print(f"sweep: {write_sweep_folder(sweep, pages, bundles, directory)}")


def _bundle_of(state: StateFolder, key: Key, directory: Path, *, allow_partial: bool) -> None:
    from loopscope.reports.bundle import export_bundle
    from loopscope.specs.artifacts.steering import ARMS
    from loopscope.specs.registration import BrokenChain
    from loopscope.state.register import extract
    from loopscope.views.experiment import ExperimentView
    from loopscope.views.registration import letters_told, other_steerings

    try:
        registered = extract(state.register, f"{key.namespace}/{key.name}")
    except BrokenChain as broken:
        raise CommandError(f"{broken}; a bundle would say that nobody changed it", 1) from None
    view = ExperimentView.load(state, key)
    if registered is not None and (steering := view.stages.get("steering")) is not None:
        own = steering.artifact.digest if steering.artifact is not None else None
        with state.database.read() as connection:
            registered["steerings"] = other_steerings(connection, key, own)
        if steering.available:
            registered["letters"] = letters_told(registered["records"], steering.table(ARMS)["arm"])
    export_bundle(view, directory, allow_partial=allow_partial, registered=registered)
