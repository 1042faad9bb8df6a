"""The payload and the metrics of the stage *geometry*."""

from __future__ import annotations

from typing import TypedDict

from loopscope.specs.payloads.references import DictionaryReference

COSINE_FLOOR = 0.2
"""From this cosine on a geometry lists every pair; children by a lower one are counted anew."""


class GeometryPayload(TypedDict):
    """The two dictionaries; nothing else enters it, so that all concepts share the result."""

    coarse: DictionaryReference
    fine: DictionaryReference


class GeometryMetrics(TypedDict):
    """The numbers of a geometry.

    ``pairs`` are listed, ``bounded`` coarse latents have more neighbours than are listed, and
    every list is complete from the cosine ``complete_from`` on.
    """

    d_in: int
    coarse: int
    fine: int
    pairs: int
    bounded: int
    complete_from: float
    effective_dimensions: float
