"""Sources of specs: paths that were named, or standard input. No pydantic here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from loopscope.specs.yaml.spec_files import spec_files

STANDARD_INPUT = Path("/dev/stdin")
"""What ``-f -`` stands for."""
REQUEST = Path("a request")
"""What stands for the file of an object that came through the API."""


class SpecSource(NamedTuple):
    """A path that was named, and the folder below which its specs may name text files."""

    path: Path
    root: Path


def files_of(sources: Iterable[SpecSource]) -> dict[Path, Path]:
    """Return every file that the paths stand for with its root; a file named twice once."""
    found: dict[str, tuple[Path, Path]] = {}
    for source in sources:
        path = source.path
        for file in [path] if path == STANDARD_INPUT else spec_files(path):
            found.setdefault(os.path.abspath(file), (file, source.root))  # noqa: PTH100 - links stay
    return dict(found.values())
