"""Second definitions: an object that two files define stays with the file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loopscope.controller.sources.folder_files import Files
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection


class DefinedTwice(InvalidSpec):
    """A file defines objects that another one defines: applying both would flip."""

    def __init__(self, by_key: Mapping[Key, Problem]) -> None:
        super().__init__(list(by_key.values()))
        self.by_key = by_key


class OwnerUnread(DefinedTwice):
    """The same of a file that was not read yet, or is refused: it may define them no more."""

    def __init__(self, by_key: Mapping[Key, Problem], keys: frozenset[Key]) -> None:
        super().__init__(by_key)
        self.keys = keys
        """Everything that the refused file defines."""


Unread = Mapping[Path, frozenset[Key] | None]
"""Files that were not applied yet, with the objects that they define; None: not known."""


def refuse_second_definitions(
    connection: Connection, loaded: list[LoadedObject], known: Files, unread: Unread
) -> None:
    """Raise DefinedTwice for objects that another file, of ``known`` or their own, defines.

    Raises OwnerUnread when that is not known, because the file that they came from was not read.
    """
    seen = {key: file for file, content in known.items() for key in content.keys}
    twice: dict[Key, Problem] = {}
    owned: dict[Key, Problem] = {}
    for item in loaded:
        key = item.manifest.key
        owner = _owner(connection, key)
        if owner == item.source or owner not in unread:
            owner = None
        defines = unread[owner] if owner is not None else frozenset()
        other = seen.get(key) or (owner if defines is not None and key in defines else None)
        if other is not None:
            message = f"{key} is also defined in {other}; rename one"
            twice[key] = item.problem("metadata.name", message)
        elif defines is None:
            message = f"{key} comes from {owner}, which is refused; mend that first"
            owned[key] = item.problem("metadata.name", message)
    if twice:
        raise DefinedTwice(twice)
    if owned:
        raise OwnerUnread(owned, frozenset(item.manifest.key for item in loaded))


def _owner(connection: Connection, key: Key) -> Path | None:
    record = objects.get(connection, key)
    source = record.annotations.get(SOURCE_ANNOTATION) if record is not None else None
    return Path(source) if source else None
