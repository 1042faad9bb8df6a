"""Unchanged files, recognised by their bytes alone, without parsing.

A file counts as unchanged when its bytes, the files that it names, the root, the code that reads
it and the objects that came of it are all the same. What is remembered is only ever a shortcut:
losing it costs one more reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loopscope.controller.apply.code_identity import code_identity
from loopscope.inputs.file_stamps import FileStamp
from loopscope.specs.chat_words import OF_THE_MODEL
from loopscope.specs.files import TEXT_BYTES_MAX
from loopscope.specs.json_values import Json
from loopscope.specs.keys import Key
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT
from loopscope.state.db import applied
from loopscope.state.db.connection import Connection
from loopscope.state.records import SourceRecord

if TYPE_CHECKING:
    from loopscope.specs.yaml.loading import LoadedObject

FILE_BYTES_MAX = TEXT_BYTES_MAX
ONE_BY_ONE_MAX = 100
"""More objects than this are found quicker in a listing of all."""
ENTRIES_MAX = 1000
"""A folder with more entries is not a model or dictionary; it is looked at again each time."""
_TEXTS, WEIGHTS = ("file",), ("path", "folder", "gguf")
Named = tuple[str, str]
"""How a spec names a file (``file``, ``path``, ``folder``, ``gguf``), and its absolute path."""


@dataclass(frozen=True)
class Unchanged:
    """Files as they were, with the objects that came of them, and the files to be read."""

    keys: dict[Path, tuple[Key, ...]]
    to_read: list[Path]
    named: dict[Path, tuple[Named, ...]] = field(default_factory=dict)

    @property
    def objects(self) -> list[Key]:
        """The objects of the unchanged files, in the order of the files."""
        return [key for keys in self.keys.values() for key in keys]


class ReadFile(NamedTuple):
    """A file as it was when it was read; ``named`` is JSON text, as in its SourceRecord."""

    path: str
    fingerprint: str
    named: str
    keys: tuple[Key, ...]


@dataclass
class FileMemory:
    """Looks at files on behalf of one manager, each named file once."""

    root: Path
    manager: str
    namespace: str | None = None
    """Of objects that name none."""
    roots: dict[str, Path] = field(default_factory=dict)
    """By the absolute path of a file: its root, where that is another one."""
    _fingerprints: dict[str, str | None] = field(default_factory=dict)
    """Taken before the files are read: one that is edited meanwhile will not compare equal."""
    _signatures: dict[tuple[str, str], str | None] = field(default_factory=dict)
    _stamps: list[FileStamp] = field(default_factory=list)
    """Of the named files that were looked at."""

    def split(self, connection: Connection, files: Iterable[Path]) -> Unchanged:
        """Return which of ``files`` are unchanged since they were last read, and which are not."""
        remembered = applied.sources(connection)
        standing = applied.standing(connection) if remembered else {}
        found = Unchanged({}, [])
        seen: set[Key] = set()
        for file in files:
            name = _name(file)
            self._fingerprints[name] = self._fingerprint(name)
            known = remembered.get(name)
            keys = self._keys_if_unchanged(known, standing) if known else None
            if known is None or keys is None or seen.intersection(keys):
                found.to_read.append(file)
            else:
                seen.update(keys)
                found.keys[file] = keys
                found.named[file] = tuple((kind, path) for kind, path, _ in json.loads(known.named))
        return found

    def look(self, loaded: Sequence[LoadedObject], split_at_ns: int) -> list[ReadFile]:
        """Return how the files of ``loaded`` are, once they were read. Before any transaction.

        Not those that name a file which changed after ``split`` or just before it.
        """
        by_file: dict[str, list[LoadedObject]] = {}
        for item in loaded:
            by_file.setdefault(item.document.file, []).append(item)
        looks = (self._look(Path(file), items, split_at_ns) for file, items in by_file.items())
        return [found for found in looks if found is not None]

    def remember(self, connection: Connection, files: Sequence[ReadFile]) -> None:
        """Note what ``look`` found, in the transaction that applies it. Reads no file."""
        if not files:
            return
        keys = [key for file in files for key in file.keys]
        few = len(keys) <= ONE_BY_ONE_MAX
        standing = _standing_of(connection, keys) if few else applied.standing(connection)
        records = [_record(file, standing) for file in files]
        everything = None if few else applied.sources(connection)

        def known(path: str) -> SourceRecord | None:
            return applied.source(connection, path) if everything is None else everything.get(path)

        news = [one for one in records if one is not None and known(one.path) != one]
        applied.record_sources(connection, news)

    def files(self, loaded: Iterable[LoadedObject]) -> dict[str, str | None]:
        """Return what stands for the content of every file that was looked at, by its path."""
        for item in loaded:
            for kind, path in named_by(item):
                self.signature(kind, path)
        named = {path: signature for (_, path), signature in self._signatures.items()}
        return {**named, **self._fingerprints}

    def _fingerprint(self, name: str) -> str | None:
        content = _bytes(name, FILE_BYTES_MAX) if name != str(STANDARD_INPUT) else None
        if content is None:
            return None
        root = self.roots.get(name, self.root)
        start = f"{code_identity()}\0{root}\0{self.manager}\0{self.namespace or ''}\0"
        return hashlib.sha256(os.fsencode(start) + content).hexdigest()

    def signature(self, kind: str, path: str) -> str | None:
        """Return what stands for a named file's content; None when that cannot be determined."""
        if (kind, path) not in self._signatures:
            look = self._text_signature if kind in _TEXTS else self._weights_signature
            self._signatures[kind, path] = look(path)
        return self._signatures[kind, path]

    def _keys_if_unchanged(
        self, known: SourceRecord, standing: dict[Key, applied.Standing]
    ) -> tuple[Key, ...] | None:
        if self._fingerprints[known.path] != known.fingerprint:
            return None
        for kind, path, signature in json.loads(known.named):
            if signature is None or self.signature(kind, path) != signature:
                return None
        keys = []
        for *words, uid, generation, metadata in json.loads(known.objects):
            key = Key(*words)
            now = standing.get(key)
            if now is None or (now.uid, now.generation) != (uid, generation):
                return None
            if _short_hash(now.metadata) != metadata:
                return None
            keys.append(key)
        return tuple(keys)

    def _look(self, file: Path, items: list[LoadedObject], split_at_ns: int) -> ReadFile | None:
        """Return how a file is; None while something that it names is too young."""
        named = sorted({pair for item in items for pair in named_by(item)})
        fresh = FileMemory(self.root, self.manager)  # as it is now, not as it was when split
        signatures = [[kind, path, fresh.signature(kind, path)] for kind, path in named]
        if not all(stamp.is_settled(split_at_ns) for stamp in fresh._stamps):
            return None
        fingerprint = self._fingerprints.get(_name(file))
        if fingerprint is None:
            return None
        keys = tuple(item.manifest.key for item in items)
        return ReadFile(_name(file), fingerprint, json.dumps(signatures), keys)

    def _text_signature(self, path: str) -> str | None:
        content = _bytes(path, TEXT_BYTES_MAX)
        if content is None:
            return None
        real = os.path.realpath(path)
        self._stamps.append(FileStamp.of(real))
        return hashlib.sha256(os.fsencode(real) + b"\0" + content).hexdigest()

    def _weights_signature(self, path: str) -> str | None:
        real = os.path.realpath(path)
        try:
            names = [real]
            if stat.S_ISDIR(os.stat(real).st_mode):  # noqa: PTH116 - hot path
                with os.scandir(real) as entries:
                    names += sorted(entry.path for entry in entries)
            if len(names) > ENTRIES_MAX:
                return None
            found = [(name, FileStamp.of(name)) for name in names]
        except OSError:
            return None
        self._stamps.extend(stamp for _, stamp in found)
        return _short_hash(json.dumps([(name, *stamp) for name, stamp in found]))


def _standing_of(connection: Connection, keys: Iterable[Key]) -> dict[Key, applied.Standing]:
    found = ((key, applied.standing_one(connection, key)) for key in keys)
    return {key: standing for key, standing in found if standing is not None}


def _record(file: ReadFile, standing: dict[Key, applied.Standing]) -> SourceRecord | None:
    """Return what to remember of a file with the objects that came of it."""
    if any(key not in standing for key in file.keys):
        return None
    made = [
        [*key, standing[key].uid, standing[key].generation, _short_hash(standing[key].metadata)]
        for key in file.keys
    ]
    return SourceRecord(file.path, file.fingerprint, file.named, json.dumps(made))


def _name(file: Path) -> str:
    return os.path.abspath(file)  # noqa: PTH100 - ten thousand times; links stay links


def _bytes(file: str, bytes_max: int) -> bytes | None:
    """Return a regular file's bytes; None for a pipe (reading would use it up) or a huge file."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116 - hot path
            return None
        with open(file, "rb") as stream:  # noqa: PTH123 - hot path
            content = stream.read(bytes_max + 1)
    except OSError:
        return None
    return content if len(content) <= bytes_max else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def named_by(item: LoadedObject) -> list[Named]:
    """Return the files that an object names, by paths in which links stay links."""
    file = item.document.file if item.source is not None else "-"  # as if it lay here
    folder = os.path.dirname(_name(Path(file)))  # noqa: PTH120 - see _name
    return [
        (kind, os.path.join(folder, os.path.expanduser(path)))  # noqa: PTH111, PTH118 - see _name
        for kind, path in _named_files(item.written["spec"])
    ]


def _named_files(value: Json) -> Iterator[tuple[str, str]]:
    """Yield how a spec names files: texts and templates (``file``), models and dictionaries."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "template" and isinstance(inner, str) and inner != OF_THE_MODEL:
                yield "file", inner
            elif name in (*_TEXTS, *WEIGHTS) and isinstance(inner, str):
                yield name, inner
            else:
                yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)
