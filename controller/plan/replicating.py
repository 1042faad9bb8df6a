"""Replicating: the sweeps that try an experiment again are stored as any object is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from loopscope.controller.apply.appliers import Applier, api_manager
from loopscope.controller.plan.editing import load_edited, store_edited
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import MATCHES_LABEL, REPLICATES_LABEL, Key
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.replication import AxisKind, matching_sweep, replicating_sweep, sweep_name
from loopscope.specs.sweep import matrix_of
from loopscope.specs.yaml.nodes import Document, read_documents
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord

REPLICATOR = Applier(api_manager("replicate"), edits=True)


def store_sweep(
    state: StateFolder, experiment: ObjectRecord, axis: AxisKind, given: Sequence[str], now: float
) -> Key:
    """Store the sweep of an experiment over an axis, as it is if it is there already.

    Values of before stay: what is asked for is added. Raises ValueError where an axis has no such
    value, InvalidSpec where a cell is no experiment, and TerminalFailure ``NameTaken`` where
    another object has the name; then nothing was stored.
    """
    key = Key("Experiment", experiment.key.namespace, sweep_name(experiment.key.name, axis))
    with state.database.read() as connection:
        before = objects.get(connection, key)
    if before is not None and before.labels.get(REPLICATES_LABEL) != experiment.key.name:
        raise _taken(key)
    known = matrix_of(before.spec)[axis] if before is not None else {}
    document = replicating_sweep(
        experiment.key.name, key.namespace, experiment.spec, axis, given, known
    )
    _store(state, document, "the replication", Path.cwd(), key, before, now)
    return key


def store_matches(state: StateFolder, experiment: ObjectRecord, now: float) -> Key:
    """Store the sweep that holds an experiment's dictionaries beside those of the pairs tried.

    Raises KeyError without any, and what ``store_sweep`` raises.
    """
    own = experiment.key
    with state.database.read() as connection:
        pairs = objects.get(connection, own._replace(name=sweep_name(own.name, "dictionary")))
        if pairs is None:
            raise KeyError("dictionary")
        known = matrix_of(pairs.spec)["dictionary"]
        document = matching_sweep(own.name, own.namespace, experiment.spec, known)
        key = own._replace(name=f"{own.name}-matches")
        before = objects.get(connection, key)
    if before is not None and before.labels.get(MATCHES_LABEL) != own.name:
        raise _taken(key)
    _store(state, document, "the matches", Path.cwd(), key, before, now)
    return key


def _taken(key: Key) -> TerminalFailure:
    return TerminalFailure(
        "NameTaken", f"{key} is another object; delete or rename it, and replicate again"
    )


def store_bundled(state: StateFolder, folder: Path, namespace: str, now: float) -> Key:
    """Store the experiment of a bundle under its name, as it is if it is there already.

    Raises InvalidSpec, and TerminalFailure ``NameTaken`` where the name has another spec.
    """
    document = bundled_spec(folder)
    loaded = load_edited([document], folder, Path("/"))
    key = Key("Experiment", namespace, loaded[0].manifest.key.name)
    with state.database.read() as connection:
        before = objects.get(connection, key)
    if before is not None:
        if before.spec != loaded[0].manifest.canonical_spec():
            raise TerminalFailure(
                "NameTaken",
                f"{key} has another spec than the bundle; name it to compare the two as they are "
                f"(`loopscope replicate {folder} {key.name}`), or use another --namespace",
            )
        return key
    value = document.value
    assert isinstance(value, dict), "it was loaded"
    metadata = value.get("metadata")
    named: JsonObject = {**(metadata if isinstance(metadata, dict) else {}), "namespace": namespace}
    _store(state, {**value, "metadata": named}, "spec.yaml of the bundle", folder, key, None, now)
    return key


def bundled_spec(folder: Path) -> Document:
    """Return the document of a bundle's experiment. Raises InvalidSpec, and TerminalFailure."""
    path = folder / "spec.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise TerminalFailure("NoBundle", f"{path} cannot be read: {error}") from None
    documents = list(read_documents(text, str(path)))
    if len(documents) != 1:
        raise TerminalFailure("NoBundle", f"{path} holds {len(documents)} objects, expected one")
    return documents[0]


def bundled_experiment(folder: Path) -> JsonObject:
    """Return the spec of a bundle's experiment with its defaults; no file that it names is read.

    Raises InvalidSpec, and TerminalFailure ``NoBundle``.
    """
    value = bundled_spec(folder).value
    try:
        given = value["spec"] if isinstance(value, dict) else None
        return ExperimentSpec.model_validate(given).canonical()
    except (KeyError, ValidationError) as error:
        raise TerminalFailure("NoBundle", f"{folder}/spec.yaml: {error}") from None


def _store(
    state: StateFolder,
    value: JsonObject,
    what: str,
    folder: Path,
    key: Key,
    before: ObjectRecord | None,
    now: float,
) -> None:
    loaded = load_edited([Document(what, value, {})], folder, Path("/"))
    if loaded[0].manifest.key != key:
        raise InvalidSpec([Document(what, value, {}).problem(("metadata", "name"), f"not {key}")])
    try:
        store_edited(state, loaded, {key: before}, now=now, applier=REPLICATOR)
    except TerminalFailure:
        with state.database.read() as connection:
            stored = objects.get(connection, key)
        if stored is None or stored.spec != loaded[0].manifest.canonical_spec():
            raise  # else somebody asked for the same meanwhile
