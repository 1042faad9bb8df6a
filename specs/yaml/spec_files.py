"""The spec files that a path stands for. No pydantic here: unchanged files are not parsed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.legible import is_encodable

NOT_LOOKED_INTO = ("lost+found",)
"""What a file system keeps for itself at its top; only root can read it."""


@dataclass(frozen=True)
class SpecFiles:
    """The YAML files below a folder in name order, and the entries that can be none."""

    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def spec_files(path: Path) -> list[Path]:
    """Return the YAML files that ``path`` stands for, in name order. Raises InvalidSpec.

    Below a folder, names that begin with a dot are not specs: editors, notebooks and systems keep
    copies under them. A hidden file or folder that is named itself is read.
    """
    try:
        found = files_below(path) if path.is_dir() else _one(path)
    except OSError as error:
        raise InvalidSpec([_problem(path, _words(error))]) from None
    if found.problems:
        raise InvalidSpec(found.problems)
    return found.files


def files_below(folder: Path) -> SpecFiles:
    """Return the YAML files below a folder; links to folders are not followed.

    What is wrong with an entry is a problem of that entry alone. Raises OSError when the folder
    itself cannot be read.
    """
    files: list[str] = []
    problems: list[Problem] = []
    top = str(folder)
    _look(top, files, problems, odd=not is_encodable(os.path.realpath(top)))
    return SpecFiles([Path(file) for file in sorted(files, key=_by_folder)], problems)


def _one(path: Path) -> SpecFiles:
    path.stat()
    odd = not is_encodable(os.path.realpath(path))
    return SpecFiles([], [_problem(path, _ODD_NAME)]) if odd else SpecFiles([path])


_ODD_NAME = "its name, or that of a folder above it, is not UTF-8; rename it"


def _look(folder: str, files: list[str], problems: list[Problem], *, odd: bool) -> None:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in NOT_LOOKED_INTO:
                    inside_odd = odd or not is_encodable(entry.name)
                    _look(entry.path, files, problems, odd=inside_odd)
            elif entry.name.endswith((".yaml", ".yml")):
                _take(entry, files, problems, odd=odd)
        except OSError as error:
            problems.append(_problem(entry.path, _words(error)))


def _take(entry: os.DirEntry[str], files: list[str], problems: list[Problem], *, odd: bool) -> None:
    if odd or not is_encodable(_place(entry)):
        problems.append(_problem(entry.path, _ODD_NAME))
    elif entry.is_file():
        files.append(entry.path)
    elif not entry.is_dir():
        kind = "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
        problems.append(_problem(entry.path, f"{kind}; remove it, or put it right"))


def _place(entry: os.DirEntry[str]) -> str:
    return os.path.realpath(entry.path) if entry.is_symlink() else entry.name


def _words(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError)
    return "no such file or folder" if missing else error.strerror or str(error)


def _problem(path: Path | str, message: str) -> Problem:
    return Problem(str(path), 0, 0, "", message)


def _by_folder(file: str) -> list[str]:
    return file.split(os.sep)  # noqa: PTH206 - ten thousand times
