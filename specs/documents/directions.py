"""``directions.json`` of a mapping."""

from __future__ import annotations

from typing import TypedDict


class DirectionsDocument(TypedDict):
    """What the directions are, and why one is missing.

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
