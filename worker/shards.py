"""The shards of the stage that runs: finished pieces, and whether one more ends in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.artifacts.store import KeptShards


@dataclass
class Shards:
    """The sealed shards of one action, ``kept`` until its artifact is published.

    Those of one ``maker`` (see ``makers.py``) are not those of another: two processors differ in
    the last bits, and an artifact that changed hands halfway would be that of neither.
    """

    kept: KeptShards
    on_sealed: Callable[[], None] = lambda: None
    maker: str = ""
    before_next: Callable[[], None] = lambda: None
    """Called before another shard is computed, once one was sealed: each try gets on by one."""
    before_seal: Callable[[], None] = lambda: None
    """Called before a shard is kept; raises where the job was taken away meanwhile."""
    _has_sealed: bool = False
    _began_at: float | None = None
    _seconds_before: float = 0.0

    def ends_within(self, seconds: float) -> bool:
        """Whether a shard is under way that may be sealed in time.

        It is expected to take as long as the one before it; the first gets the chance.
        """
        if self._began_at is None:
            return False
        return self._began_at + self._seconds_before <= time.monotonic() + seconds

    def overruns(self, seconds: float) -> bool:
        """Whether a shard is under way that cannot be expected to be sealed in time."""
        return self._began_at is not None and not self.ends_within(seconds)

    def sealed(self, name: str) -> Path | None:
        """Return the path of a complete shard from this or an earlier attempt, else None.

        After None the caller is taken to be computing the shard, until it is sealed. Raises what
        ``before_next`` raises.
        """
        path = self.kept.sealed(self._own(name))
        if path is None and self._has_sealed:
            self.before_next()
        self._began_at = time.monotonic() if path is None else None
        return path

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        """Call ``write(temporary_path)`` and keep the result durably as shard ``name``.

        Raises what ``before_seal`` raises; then nothing was kept.
        """
        self.before_seal()
        path = self.kept.seal(self._own(name), write)
        self._has_sealed = True
        if self._began_at is not None:
            self._seconds_before, self._began_at = time.monotonic() - self._began_at, None
        self.on_sealed()
        failpoints.reach("shard-sealed")
        return path

    def _own(self, name: str) -> str:
        return f"{self.maker}.{name}" if self.maker else name
