"""Git LFS pointers: the three lines that a clone without LFS leaves in place of a large file."""

from __future__ import annotations

import re

POINTER_BYTES_MIN = 64
"""This many bytes from a file's start are enough to recognise a pointer."""
ADVICE = "is a Git LFS pointer, not the file itself; run git lfs pull in its checkout"
_FIRST_LINE = re.compile(rb"version https://(?:git-lfs\.github|hawser\.github)\.com/spec/v\d+\r?\n")


def is_pointer(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a pointer."""
    return _FIRST_LINE.match(start) is not None
