"""Sealed shards in a folder: finished pieces of a long stage that survive a crash of the worker.

A shard is a file beside a seal (``<name>.seal.json`` with its sha256 and size). The file is
written under a temporary name, fsynced and renamed, then the seal likewise, so a shard with a
seal is complete. A shard whose bytes do not match its seal is as good as absent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts.store import KeptShards
from loopscope.state.files import durable_replace, file_sha256, fsync_path

_SEAL = ".seal.json"


@dataclass
class ShardFolder(KeptShards):
    """The sealed shards of one action, kept in ``folder``."""

    folder: Path
    _is_durable: bool = False

    def sealed(self, name: str) -> Path | None:
        """Return the path of a complete shard from this or an earlier attempt, else None."""
        path = self.folder / name
        try:
            seal = json.loads(self._seal_path(name).read_text())
            intact = path.stat().st_size == seal["bytes"] and file_sha256(path) == seal["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if intact else None

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        """Call ``write(temporary_path)`` and keep the result durably as shard ``name``."""
        self._make_folder_durable()
        path = self.folder / name
        temporary = self.folder / f".{name}.{os.getpid()}.tmp"
        failpoints.reach("shard-write")
        write(temporary)
        record = {"bytes": temporary.stat().st_size, "sha256": file_sha256(temporary)}
        durable_replace(temporary, path)
        seal_temporary = self.folder / f".{name}.seal.{os.getpid()}.tmp"
        seal_temporary.write_text(json.dumps(record, sort_keys=True))
        durable_replace(seal_temporary, self._seal_path(name))
        return path

    def names(self) -> list[str]:
        """Return the names of the shards that have a seal."""
        found = sorted(path.name for path in self.folder.glob(f"*{_SEAL}"))
        return [name.removesuffix(_SEAL) for name in found]

    def _make_folder_durable(self) -> None:
        """Make the folder, and force it with those above to the disk, once for each attempt.

        The process that made them may have died before they were durable.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._is_durable:
            for above in self.folder.parents[:3]:  # up to the state folder
                fsync_path(above)
            self._is_durable = True

    def _seal_path(self, name: str) -> Path:
        return self.folder / f"{name}{_SEAL}"
