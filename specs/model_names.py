"""Comparison of model names; a name is not an identity, it only shows misfits."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.spec_json import ModelJson


def another_model(model: ModelJson, trained_on: Sequence[str]) -> str | None:
    """Return the model's public name when it is none of ``trained_on``; None if it may be.

    ``model`` is a spec's; ``trained_on`` holds the names of the model that a dictionary was
    trained on, empty where that is not recorded. The ``name`` of a local file is its user's own
    unless it is written as a hub repository (``owner/name``): then nothing is known.
    """
    name = _public_name(model)
    if name is None or not trained_on:
        return None
    return None if _plain(name) in set(map(_plain, trained_on)) else name


def maybe_another_model(model: ModelJson, trained_on: Sequence[str]) -> str | None:
    """Return what a spec calls its model where that is not known to be one of ``trained_on``.

    Unlike ``another_model`` also of a user's own name for local files: a model that was tuned at
    home is called as its user likes.
    """
    if not trained_on:
        return None
    name = _public_name(model) or model["name"]
    return None if _plain(name) in set(map(_plain, trained_on)) else name


def _public_name(model: ModelJson) -> str | None:
    source = {key: value for key, value in (model.get("source") or {}).items() if value is not None}
    name = model["name"]
    if not source or "hub" in source:
        return str(source.get("hub", name))
    return name if "/" in name else None


def _plain(name: str) -> str:
    """Return the name without owner and case; Gemma 3 is written in three ways."""
    return name.rpartition("/")[2].lower().replace("gemma-v3-", "gemma-3-").removesuffix("-pt")
