"""A source of texts: what all ways of giving texts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class DatasetAsked:
    """Files of a hub data set as a spec asks for them: by their names, or by a split."""

    name: str
    revision: str
    data_files: str | None = None
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class DatasetFile:
    """A file of a data set: its name in the repository, its sha256, and a local copy."""

    name: str
    sha256: str
    path: Path


@dataclass(frozen=True)
class FoundDataset:
    """The files that were asked for, at least one, in the order of their names, of one commit."""

    commit: str
    files: tuple[DatasetFile, ...]


class TextFiles(Protocol):
    """The files with texts that a spec may name; paths are relative to the YAML."""

    def content(self, file: str) -> bytes:
        """Return a file's bytes; raise ValueError with one clear sentence."""

    def dataset(self, asked: DatasetAsked) -> FoundDataset:
        """Return files of a hub data set; raise ValueError with one clear sentence."""


@dataclass(frozen=True)
class ReadTexts:
    """Texts in their order.

    ``columns`` holds one label for each text, by what ``groups.column`` may name. ``read`` is how
    many rows the texts were chosen from, where there are rows.
    """

    texts: list[str]
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    read: int | None = None
    resolved: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class TextSource:
    """One way in which a spec gives texts.

    It is asked where a set of texts has its ``field``, written as ``written_as``; where several
    sources share a field, where ``format`` has this value. ``options`` are the further fields that
    it understands. ``read`` gets the set's fields as they are written. It returns the texts, and
    raises ValueError with one clear sentence. What it returns is stored with the object, so it is
    asked when a spec is applied and never again.
    """

    field: str
    read: Callable[[Mapping[str, Any], TextFiles], ReadTexts]
    format: str | None = None
    written_as: type = str
    options: tuple[str, ...] = ()
