"""Which files a path stands for. No pydantic here: files that did not change are not parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from loopscope.specs.errors import InvalidSpec, Problem


def spec_files(path: Path) -> list[Path]:
    """Return the YAML files that ``path`` stands for, in name order.

    Below a folder, names that begin with a dot are no specs: editors, notebooks and systems keep
    their copies so. A hidden file or folder that is named itself is read.
    """
    if path.is_dir():
        return [Path(file) for file in sorted(_yaml_below(str(path)), key=_by_folder)]
    try:
        path.stat()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        message = "no such file or folder" if missing else error.strerror or str(error)
        raise InvalidSpec([Problem(str(path), 0, 0, "", message)]) from None
    return [path]


def _yaml_below(folder: str) -> Iterator[str]:
    """Yield the YAML files below a folder; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except PermissionError:
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.name.endswith((".yaml", ".yml")) and entry.is_file():
            yield entry.path
        elif entry.is_dir(follow_symlinks=False):
            yield from _yaml_below(entry.path)


def _by_folder(file: str) -> list[str]:
    return file.split(os.sep)  # noqa: PTH206 - ten thousand times
