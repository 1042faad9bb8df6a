"""The files that a spec names, kept inside a root folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from loopscope.specs.legible import encodable, is_encodable
from loopscope.specs.suggest import closest
from loopscope.specs.texts.source import DatasetAsked, FoundDataset

NEIGHBOURS_MAX = 1000
TEXT_BYTES_MAX = 16 * 1024 * 1024
DatasetReader = Callable[[DatasetAsked], FoundDataset]
"""How files of a hub data set are come by. Raises ValueError with one clear sentence."""


@dataclass(frozen=True)
class RootedFiles:
    """Reads text files relative to ``base`` that lie under ``root``.

    Text files are embedded in stored objects, so they must lie under the root. Weights are
    referred to, not embedded, and may lie anywhere. Data sets of the hub are up to ``datasets``.
    """

    base: Path
    root: Path
    datasets: DatasetReader | None = None

    def dataset(self, asked: DatasetAsked) -> FoundDataset:
        """Return files of a hub data set."""
        if self.datasets is None:
            raise ValueError(f"{asked.name} cannot be read here: data sets of the hub are left out")
        return self.datasets(asked)

    def content(self, file: str) -> bytes:
        """Return the bytes of a file below the root."""
        path = self._resolved(file)
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(
                f"{file} lies outside {self.root}; move it there, or widen the root with --root"
            )
        try:
            if path.exists() and not path.is_file():
                raise ValueError(f"{_short(file)} is no file (a folder, a pipe or a device)")
            if not path.is_file():
                raise ValueError(
                    f"no such file: {file} (looked in {self.base}){_neighbour(file, path)}"
                )
            return read_at_most(path, TEXT_BYTES_MAX)
        except OSError as error:
            raise ValueError(f"cannot read {_short(file)}: {error.strerror}") from None

    def locate(self, path: str) -> str:
        """Return the absolute path of an existing file or folder."""
        try:
            found = self._resolved(path)
            exists = found.exists()
        except OSError as error:
            raise ValueError(f"cannot look at {_short(path)}: {error.strerror}") from None
        if not exists:
            raise ValueError(
                f"no such file or folder: {path} (looked in {self.base}){_neighbour(path, found)}"
            )
        if not is_encodable(str(found)):
            raise ValueError(
                f"{path} leads to {encodable(str(found))}, which is not UTF-8; rename it"
            )
        return str(found)

    def _resolved(self, path: str) -> Path:
        try:
            return (self.base / Path(path).expanduser()).resolve()
        except (RuntimeError, ValueError) as error:  # links in a circle, ~ of no user, U+0000
            raise ValueError(f"{_short(path)} leads nowhere: {error}") from None


def read_at_most(path: Path, bytes_max: int) -> bytes:
    """Return a file's bytes; ValueError when there are more, also in a file without an end."""
    with path.open("rb") as stream:
        return read_stream(stream, path.name, bytes_max)


def read_stream(stream: BinaryIO, name: str, bytes_max: int) -> bytes:
    """Return what is left in a stream; ValueError when that is more than ``bytes_max``."""
    content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise ValueError(f"{name} is larger than {bytes_max:,} bytes")
    return content


def _neighbour(written: str, found: Path) -> str:
    """Return which of the names beside a missing file was probably meant."""
    if not Path(written).name:
        return ""
    try:
        names = list(itertools.islice((p.name for p in found.parent.iterdir()), NEIGHBOURS_MAX))
    except OSError:
        return ""
    close = closest(found.name, names, cutoff=0.75)
    return f"; did you mean {str(Path(written).with_name(close))!r}?" if close else ""


def _short(path: str) -> str:
    """Return a path as a message shows it; the empty one can be seen."""
    if not path:
        return "''"
    return path if len(path) <= 80 else f"{path[:80]}… ({len(path)} characters)"
