"""A share: a job that makes shards of another one's action beside it, from the other end.

The job that it helps makes the artifact, and needs no share for it: it finds what a share has
sealed, and makes whatever else there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from loopscope.specs.actions import Action, Stage


@dataclass(frozen=True)
class Share:
    """The share ``number`` of ``count``, from 1, of the job ``of_job``, which makes ``digest``."""

    job_id: int
    of_job: int
    number: int
    count: int
    maker: str
    """The kind of processor or card that makes the shards; a worker of another one makes none."""
    digest: str
    has_ended: bool = False

    def shards(self, total: int) -> range:
        """Return the numbers of its shards of ``total``: every ``count``-th, the last ones first.

        The job that it helps begins at the first one, so they meet wherever the faster one gets.
        """
        return range(total - self.number, -1, -self.count)

    def action(self, stage: str, payload: Mapping[str, object]) -> Action:
        """Return what its job does; as a job of its own it has a digest of its own."""
        declared = {
            "shardsOf": self.digest,
            "share": [self.number, self.count],
            "maker": self.maker,
        }
        return Action(cast(Stage, stage), declared, payload)

    @property
    def words(self) -> str:
        """Which share it is, for a table."""
        return f"share {self.number} of {self.count} of job {self.of_job}"
