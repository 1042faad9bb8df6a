"""Descriptions of a dictionary's latents by others: a page for each, and labels where fetched.

Shown beside what was measured here, and used to choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from loopscope.specs.payloads.steering import Side


@dataclass(frozen=True)
class Label:
    """The labels of one latent, and the day on which they were fetched (``2026-11-29``)."""

    texts: tuple[str, ...]
    fetched_on: str


@dataclass(frozen=True)
class Elsewhere:
    """Where a dictionary's latents have pages: ``site`` with its scheme, ``place`` below it."""

    site: str
    place: str
    labels: Mapping[int, Label] = field(default_factory=dict)

    def page(self, latent: int) -> str:
        """Return the address of a latent's page."""
        return f"{self.site}/{self.place}/{latent}"


Described = Mapping[Side, Elsewhere]
"""By side; a dictionary that is described nowhere is not there."""
NOWHERE: Described = MappingProxyType({})
