"""JSON documents of artifacts: what stands in them, for the stages that write and read them."""

from __future__ import annotations

from typing import TypedDict


class NormsDocument(TypedDict):
    """``norms.json`` of a capture: lengths of its vectors, over ``n_tokens`` of ``population``."""

    median_norm: float
    median_centred_norm: float
    mean_norm: float
    n_tokens: int
    population: str


class DirectionsDocument(TypedDict):
    """``directions.json`` of a mapping: what its directions are, and why one is missing.

    ``anchor`` is the steered coarse latent (None without any), ``anchors`` all of them with that
    one first, ``children`` its fine latents and ``children_of_all`` those of all anchors. ``arms``
    says in words what each direction is.
    """

    anchor: int | None
    anchors: list[int]
    children: list[int]
    children_of_all: list[int]
    arms: dict[str, str]
    missing: dict[str, str]
