"""The vector of one arm as a file: ``export vector``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import (
    KIND_BY_WORD,
    CommandError,
    Globals,
    experiment_names,
    find_experiment,
    find_one,
    kind_of,
    now,
)
from loopscope.specs.keys import Key
from loopscope.specs.vectors import FORMATS, Measured, VectorFormat
from loopscope.state.db.connection import Connection
from loopscope.state.files import durable_replace

if TYPE_CHECKING:
    from loopscope.specs.payloads.steering import SteeringPayload
    from loopscope.views.experiment import ExperimentView

WRITING = ("-P", "-m", "loopscope.worker.vector_export")
READ = ("capture", "coarse", "fine", "mapping")
"""The stages whose artifacts a vector is built from."""


def write_vector_of(
    given: Globals,
    words: list[str],
    path: Path,
    arm: str,
    strength: float | None,
    layout: str | None,
    device: str | None,
) -> None:
    """Write the vector of an arm to a file that does not exist yet, and say what it is."""
    from loopscope.controller.plan.steering_order import steering_order
    from loopscope.views.experiment import ExperimentView
    from loopscope.views.vectors import measured_of

    chosen = _layout(layout)
    _check_place(path)
    refuse_without_workers("export vector")
    state = given.open_to_read()
    with state.database.read() as connection:
        key = _experiment(connection, given.namespace, words)
    view = ExperimentView.load(state, key)
    try:
        measured = measured_of(view, arm, strength)
        steering = view.stage("steering").record
        assert steering is not None, "something was measured"
        with state.database.read() as connection:
            payload = steering_order(connection, steering.key, now())
    except LookupError as why:
        raise CommandError(str(why.args[0]), 1) from None
    _write(path, _request(view, payload, measured, chosen, device or "cpu"))
    print(f"vector: {path}")
    print(_in_short(measured))


def _layout(word: str | None) -> VectorFormat:
    if word is None:
        return FORMATS[0]
    if word not in FORMATS:
        raise CommandError(f"--format {word!r} is not known; expected {', '.join(FORMATS)}")
    return word


def _check_place(path: Path) -> None:
    _refuse_existing(path)
    if not path.absolute().parent.is_dir():
        raise CommandError(f"{path.absolute().parent} is not a folder; create it first", 1)


def _experiment(connection: Connection, namespace: str, words: list[str]) -> Key:
    """Return the experiment that is named, itself or by its steering."""
    kind, _, name = words[0].partition("/")
    rest = [name] if name else words[1:]
    if kind.lower() in KIND_BY_WORD and kind_of(kind) == "Steering" and len(rest) == 1:
        steering = find_one(connection, "Steering", namespace, rest[0])
        if steering.owner is None:
            raise CommandError(
                f"{steering.key} belongs to no experiment, and a vector's passport names one", 1
            )
        return steering.owner
    names = experiment_names(words, "export vector")
    if len(names) != 1:
        raise CommandError(f"export vector takes one experiment; found {' '.join(names)!r}")
    return find_experiment(connection, namespace, names[0]).key


def _request(
    view: ExperimentView,
    payload: SteeringPayload,
    measured: Measured,
    layout: VectorFormat,
    device: str,
) -> dict[str, object]:
    from loopscope.reconcilers.question import work_of_one

    stages = [view.stage(cast(Any, name)) for name in READ]
    asked: Any = {"arm": measured["arm"], "strength": measured["strength"]["strength"]}
    return {
        "work": work_of_one(payload, payload["openings"][0], asked),
        "artifacts": {
            stage.artifact.digest: str(stage.folder)
            for stage in stages
            if stage.artifact is not None
        },
        "measured": measured,
        "format": layout,
        "device": device,
    }


def _write(path: Path, request: dict[str, object]) -> None:
    """Have the file written beside its place, and put it there when it is whole."""
    from loopscope.state.child_processes import computing_environment

    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        done = subprocess.run(
            [sys.executable, *WRITING],
            input=json.dumps({**request, "path": str(temporary)}),
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=computing_environment(),
        )
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            last = done.stderr.strip().rpartition("\n")[2][:500]
            raise CommandError(f"the process that loads the model ended: {last}", 1) from None
        if "error" in answer:
            raise CommandError(f"{answer['error']}; nothing was written", 1)
        _refuse_existing(path)  # another command may have been quicker
        durable_replace(temporary, path.absolute())
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise CommandError(f"{path} exists; name a new file, or remove it first", 1)


def _in_short(measured: Measured) -> str:
    strength, effect = measured["strength"], measured["effect"]
    rate = f"concept in {effect['rate']:.0%} of {effect['texts']} texts"
    if effect["unsteered_rate"] is not None:
        rate += f", unsteered {effect['unsteered_rate']:.0%}"
    if effect["difference"] is not None and effect["low"] is not None:
        rate += f" ({effect['difference']:+.2f} [{effect['low']:+.2f}, {effect['high']:+.2f}])"
    return (
        f"{measured['arm']} at {strength['strength']:g} {strength['unit']}, norm "
        f"{strength['norm']:.4g}: {rate}; KL {measured['damage']['next_token_kl']:.3g} nats"
    )
