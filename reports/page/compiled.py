"""Compiled templates, kept where Python keeps compiled modules and on the same terms."""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

import jinja2
from jinja2.bccache import Bucket, BytecodeCache


class CompiledTemplates(BytecodeCache):
    """A ``__pycache__`` beside the templates, where Python may write one.

    What is found there counts while template, ``options`` of the environment, Jinja and Python are
    those that it was made with; anything else is made again and replaced.
    """

    def __init__(self, options: str) -> None:
        """Keep what an environment of these options compiles."""
        self._made_with = f"{jinja2.__version__} {options}\n"

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Return the file of the template: a bucket knows nothing else of it."""
        return filename or name

    def get_source_checksum(self, source: str) -> str:
        """Return the digest of the template and of what compiles it."""
        return super().get_source_checksum(self._made_with + source)

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what was kept, if it is of this template and these programs."""
        head = _head(bucket)
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError):
            kept = _place(bucket).read_bytes()
            if kept.startswith(head):
                bucket.code = marshal.loads(kept[len(head) :])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled, whole or not at all; in silence where that is not possible."""
        if sys.dont_write_bytecode:
            return
        place = _place(bucket)
        temporary = place.with_name(f"{place.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            place.parent.mkdir(exist_ok=True)
            temporary.write_bytes(_head(bucket) + marshal.dumps(bucket.code))
            temporary.replace(place)


def _head(bucket: Bucket) -> bytes:
    return MAGIC_NUMBER + bucket.checksum.encode()


def _place(bucket: Bucket) -> Path:
    return Path(cache_from_source(bucket.key))
