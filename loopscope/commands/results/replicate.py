"""``replicate``: the same spec again, as somebody else has it or along an axis: does it hold."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.commands.options import DeviceOption, RunTimeoutOption
from loopscope.context import (
    EXIT_STALLED,
    EXIT_TIMED_OUT,
    CommandError,
    Globals,
    experiment_names,
    find_experiment,
    now,
    rates_of_this_machine,
    study_named,
)
from loopscope.specs.keys import Key
from loopscope.state.folder import StateFolder
from loopscope.terminal.columns import show
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.specs.replication import AxisKind
    from loopscope.views.replication.axes import Replicated
    from loopscope.views.replication.pairs import Pairs
    from loopscope.views.replication.run import Run

EXAMPLES = {
    "replicate": (
        "replicate ./france-bundle",
        "replicate ./france-bundle france -o json",
        "replicate france --axis seed --axis dtype=bfloat16",
        "replicate france --axis dictionary=two:pairs/2,three:pairs/3 --no-run",
        "replicate study/animals --axis dictionary=two:pairs/2,three:pairs/3",
    ),
}
SPEC = "spec.yaml"
BATCH = "batch"
"""Needs no run: each capture holds a few prompts that ran alone."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replicate")(replicate)


def replicate(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE [NAME] | NAME | study/NAME",
            help="A folder that `export` wrote, and by its name the run to hold against it, if it "
            "is not to be run; or an experiment; or a study, of which every concept is tried.",
            autocompletion=complete_experiment,
        ),
    ],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            help="seed, dtype, batch, layer, prompts, dictionary=NAME:FOLDER, model=NAME:FOLDER; "
            "values after =, with commas between them; repeatable.",
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Work until it is settled; or only show it.")
    ] = True,
    timeout: RunTimeoutOption = None,
    device: DeviceOption = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Run the same spec again and say whether the same comes of it.

    A bundle's experiment is stored and run here, and held against what the bundle holds. An axis
    is stored as a sweep NAME-by-AXIS, of which each cell differs from the experiment in one thing.
    Each answer is same bytes, same numbers, same effect, another effect or not known, with the
    stage at which the two part and what parted them. Exit 1 where something does not hold.
    """
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    from loopscope.views.replication.pairs import load_pairs  # late: numpy takes its time

    axes = [_axis(one) for one in axis or () if one != BATCH]
    if (study := study_named(words)) is not None:
        _study(context.obj, study, axes, device, timeout, output, run=run)
        return
    bundle = Path(words[0]) if (Path(words[0]) / SPEC).is_file() else None
    state = context.obj.open() if bundle is not None else context.obj.open_existing()
    key = _experiment(context.obj, state, words, bundle)
    keys = [key, *(_stored(state, key, one, given) for one, given in axes)]
    if any(one == "dictionary" for one, _ in axes):
        keys.append(_matches(state, key))
    if not (bundle or axis or _has_sweeps(state, key)):
        raise CommandError(
            f"{key.name} is its own replication; name what should differ with --axis, or replicate "
            f"its bundle in another state folder (`loopscope export {key.name} DIR`, then "
            "`loopscope --state OTHER replicate DIR`)"
        )
    if run:
        _work(state, keys, device, timeout)
    found = _found(state, key, bundle)
    _show(found, load_pairs(state, key), output)
    if any(one.found is None or not one.found.holds for one in found.tried):
        raise typer.Exit(EXIT_STALLED)


def _study(
    given: Globals,
    name: str,
    axes: list[tuple[AxisKind, list[str]]],
    device: str | None,
    timeout: float | None,
    output: str | None,
    *,
    run: bool,
) -> None:
    from loopscope.commands.results.replicate_study import show_study, stored_concepts

    if not axes:
        raise CommandError(f"name what should differ: replicate study/{name} --axis seed")
    state = given.open_existing()
    key = Key("Study", given.namespace, name)
    keys = [one for axis, values in axes for one in stored_concepts(state, key, axis, values)]
    if run:
        _work(state, [key, *keys], device, timeout)
    if not show_study(state, key, [axis for axis, _ in axes], output):
        raise typer.Exit(EXIT_STALLED)


def _axis(word: str) -> tuple[AxisKind, list[str]]:
    from loopscope.specs.replication import AXES

    name, _, values = word.partition("=")
    if name == BATCH:
        raise CommandError("--axis batch takes no values: it needs no run; write --axis batch")
    if name not in AXES:
        raise CommandError(f"--axis {name!r}; expected one of {', '.join((*AXES, BATCH))}")
    return name, [value for value in values.split(",") if value]


def _experiment(given: Globals, state: StateFolder, words: list[str], bundle: Path | None) -> Key:
    """Return the experiment that is meant; that of a bundle is stored unless one is named."""
    from loopscope.controller.plan.replicating import store_bundled

    if bundle is not None and len(words) == 1:
        return store_bundled(state, bundle.resolve(), given.namespace, now())
    names = experiment_names(words[1:] if bundle is not None else words, "replicate")
    if len(names) != 1:
        raise CommandError(
            "replicate takes a bundle, a bundle and an experiment, or an experiment; found "
            f"{' '.join(words)!r} ({words[0]!r} holds no {SPEC})"
        )
    with state.database.read() as connection:
        return find_experiment(connection, given.namespace, names[0]).key


def _stored(state: StateFolder, key: Key, axis: AxisKind, given: Sequence[str]) -> Key:
    from loopscope.controller.plan.replicating import store_sweep

    with state.database.read() as connection:
        experiment = find_experiment(connection, key.namespace, key.name)
    try:
        return store_sweep(state, experiment, axis, given, now())
    except ValueError as error:
        raise CommandError(f"--axis {error}") from None


def _matches(state: StateFolder, key: Key) -> Key:
    from loopscope.controller.plan.replicating import store_matches

    with state.database.read() as connection:
        experiment = find_experiment(connection, key.namespace, key.name)
    return store_matches(state, experiment, now())


def _has_sweeps(state: StateFolder, key: Key) -> bool:
    from loopscope.views.replication.axes import sweeps_of

    return bool(sweeps_of(state, key))


def _work(state: StateFolder, keys: list[Key], device: str | None, timeout: float | None) -> None:
    from loopscope.commands.process.run import Running
    from loopscope.commands.worker_libraries import refuse_without_workers
    from loopscope.controller.settings import Settings
    from loopscope.logs import log_to_stderr
    from loopscope.terminal.live import LiveView
    from loopscope.views.progress import RunProgress

    settings = Settings(device=device) if device is not None else Settings()
    refuse_without_workers("replicate", settings)
    log_to_stderr(logging.CRITICAL, "console")
    deadline = time.monotonic() + timeout if timeout is not None else math.inf
    progress = RunProgress(state, keys, 1, rates_of_this_machine())
    with LiveView.beside_output(progress) as view:
        ending = Running(state, progress.family, settings, view, deadline).until_ended()
    if ending == "timed out":
        raise typer.Exit(EXIT_TIMED_OUT)


def _found(state: StateFolder, key: Key, bundle: Path | None) -> Replicated:
    from loopscope.inputs.thresholds import thresholds_of
    from loopscope.views.replication.axes import load_replicated

    reference = _run_of(bundle) if bundle is not None else None
    return load_replicated(state, key, reference=reference, thresholds_of=thresholds_of)


def _run_of(bundle: Path) -> Run:
    from loopscope.controller.plan.replicating import bundled_experiment
    from loopscope.views.replication.run import run_of_bundle

    return run_of_bundle(bundle.resolve(), bundled_experiment(bundle.resolve()))


def _show(found: Replicated, pairs: Pairs, output: str | None) -> None:
    from loopscope.reports.text_table import TextTable
    from loopscope.views.documents.replication import replicated_document
    from loopscope.views.replication.axes import replicated_lines
    from loopscope.views.replication.pairs import pair_lines
    from loopscope.views.replication.replication import replication_sentences

    if output == "json":
        print(json.dumps(replicated_document(found, pairs), indent=2, ensure_ascii=False))
        return
    head, *rows = replicated_lines(found)
    show(TextTable([name.upper() for name in head], [list(row) for row in rows]))
    for one in found.tried:
        if one.found is not None and one.found.parted is not None:
            print(f"\n{one.axis} {one.value}:")
            print(printable("\n".join(f"  {line}" for line in replication_sentences(one.found))))
    print()
    for axis in found.axes:
        print(printable(found.sentence(axis)))
    print(f"batch: {found.alone}.")
    if pairs.lines:
        print()
        head, *rows = pair_lines(pairs)
        show(TextTable([name.upper() for name in head], [list(row) for row in rows]))
    for problem in pairs.problems:
        print(printable(problem))
