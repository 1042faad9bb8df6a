"""Objects that come in no file, edited or sent: the same load, admission, guard and store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loopscope.controller.apply.appliers import Applier, api_manager
from loopscope.controller.apply.intents import Intent, intents
from loopscope.controller.apply.unchanged import FileMemory, Unchanged
from loopscope.controller.plan.applying import admitted
from loopscope.controller.plan.requests import Done, Reading, Request, fulfil, refuse_costly
from loopscope.inputs.datasets import Datasets
from loopscope.specs.files import RootedFiles
from loopscope.specs.keys import Key
from loopscope.specs.yaml.loading import LoadedObject, load_documents
from loopscope.specs.yaml.nodes import Document
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord, edition_of

EDITOR = Applier(api_manager("edit"), edits=True)
"""Who edits by hand. It becomes nobody's field manager: a file goes on to apply its object."""


def load_edited(documents: Sequence[Document], folder: Path, root: Path) -> list[LoadedObject]:
    """Load objects; text files are named from ``folder`` and lie under ``root``.

    Raises InvalidSpec with every problem; then nothing may be stored.
    """
    return admitted(load_documents(documents, RootedFiles(folder, root, Datasets().find)))


def store_edited(
    state: StateFolder,
    loaded: list[LoadedObject],
    before: Mapping[Key, ObjectRecord | None],
    *,
    now: float,
    applier: Applier = EDITOR,
    confirm: bool = False,
) -> Done:
    """Store objects in one transaction, if each is still what was read ``before``; None: new.

    Raises Failure, as an apply does; then nothing was stored.
    """
    reading = _reading(loaded, now, applier, confirm)
    expected = {"/".join(key): edition_of(record) for key, record in before.items()}
    return fulfil(state, reading, now=now, expected=expected)


def would_store(
    state: StateFolder,
    loaded: list[LoadedObject],
    *,
    now: float,
    applier: Applier = EDITOR,
    confirm: bool = False,
) -> list[Intent]:
    """Return what ``store_edited`` would make of objects; raises what it would raise."""
    with state.database.read() as connection:
        found = intents(connection, loaded, applier)
    refuse_costly(state, _reading(loaded, now, applier, confirm), now=now)
    return found


def _reading(loaded: list[LoadedObject], now: float, applier: Applier, confirm: bool) -> Reading:
    request = Request((), applier, confirm=confirm)
    memory = FileMemory(Path.cwd(), applier.manager)
    return Reading(request, memory, Unchanged({}, []), loaded, int(now * 1e9))
