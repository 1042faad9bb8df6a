"""An index of a watched folder's files: what each defines and names."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.controller.apply.unchanged import WEIGHTS, Named
from loopscope.specs.keys import Key


@dataclass(frozen=True)
class FileContent:
    """The objects that a file defines, and the files that they name."""

    keys: tuple[Key, ...]
    named: tuple[Named, ...]


Files = Mapping[Path, FileContent]


@dataclass
class ChangedPaths:
    """What was noticed since it was last asked for; filled by watching threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _paths: set[Path] = field(default_factory=set)
    _everything: bool = False

    def add(self, paths: set[Path] | None) -> None:
        """Note paths that changed; None: anything may have."""
        with self._lock:
            self._everything |= paths is None
            self._paths |= paths or set()

    def __bool__(self) -> bool:
        with self._lock:
            return self._everything or bool(self._paths)

    def take(self) -> set[Path] | None:
        """Return and forget what was noted; None: anything may have changed."""
        with self._lock:
            paths, everything = self._paths, self._everything
            self._paths, self._everything = set(), False
        return None if everything else paths


def still_known(files: Iterable[Path], known: Files, changed: set[Path]) -> Files | None:
    """Return the files that need no reading after ``changed``, or None when all must be compared.

    A file that is neither a spec nor named by one does not matter; but a swapped link may lead
    anywhere.
    """
    there = set(files)
    names = {path for named in {content.named for content in known.values()} for _, path in named}
    names |= {os.path.realpath(path) for path in names}
    for path in changed - there:
        visible = not path.name.startswith(".")
        gone = path in known or (visible and path.suffix in (".yaml", ".yml"))
        if gone or path.is_symlink() or _concerns(str(path), names):
            return None
    standing = there - changed
    return {file: content for file, content in known.items() if file in standing}


def _concerns(path: str, names: set[str]) -> bool:
    """Whether a path is named, lies in a folder that is, or leads to what is."""
    above = (str(parent) for parent in Path(path).parents)
    return path in names or any(p in names for p in above) or _leads_to(path, names)


def _leads_to(path: str, names: set[str]) -> bool:
    return any(name.startswith(f"{path}{os.sep}") for name in names)


def folders_of_weights(files: Files) -> set[Path]:
    """Return the folders that hold the models and dictionaries that are named by path."""
    distinct = {content.named for content in files.values()}
    paths = {Path(name) for named in distinct for kind, name in named if kind in WEIGHTS}
    return {path if os.path.isdir(path) else path.parent for path in paths}  # noqa: PTH112 - False on errors
