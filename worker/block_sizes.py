"""Block sizes of a job: chosen by shape, and then those of the artifact's first shard.

Sums in blocks of another size round otherwise. A job that is resumed by another version, with
another table of sizes, goes on with the sizes with which it was begun, so its bytes are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from loopscope.worker.shards import Shards

SIZES = "sizes.json"


def recorded_sizes(shards: Shards, chosen: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes that were sealed when the work was begun; seal ``chosen`` if it was not."""

    def write(path: Path) -> None:
        path.write_text(json.dumps(dict(chosen), sort_keys=True))

    found = shards.sealed(SIZES) or shards.seal(SIZES, write)
    return {name: int(size) for name, size in json.loads(found.read_text()).items()}
