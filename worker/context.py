"""The context of a running stage: warm inputs, verified artifacts, shards, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopscope.specs.payloads.references import DictionaryReference, ModelReference
from loopscope.state.share import Share
from loopscope.worker.companions import Companion, ShardKind
from loopscope.worker.progress import ProgressReport
from loopscope.worker.shards import Shards

if TYPE_CHECKING:
    from loopscope.numerics.dictionaries.sparse import SparseDictionary
    from loopscope.worker.models import LoadedModel


@dataclass(frozen=True)
class StageContext:
    """The surroundings of one running job.

    ``model`` and ``dictionary`` are warm caches that verify file hashes before use;
    ``artifact(stage, digest)`` returns the folder of a published artifact after its hashes
    were verified; ``progress`` is to be called between batches, at least about once a second.
    ``batch_divisor`` is 2 after memory ran out: each batch is then computed in two passes, while
    what a shard holds stays the same.
    """

    device: str
    model: Callable[[ModelReference], LoadedModel]
    dictionary: Callable[[DictionaryReference], SparseDictionary]
    artifact: Callable[[str, str], Path]
    shards: Shards
    progress: ProgressReport
    batch_divisor: int = 1
    companions: Callable[[ShardKind], list[Companion]] = lambda kind: []
    """Other captures that wait for the same shards of a kind: one forward pass serves them all."""
    share: Share | None = None
    """Which shards of another job's action are to be made; None where the action is one's own."""
