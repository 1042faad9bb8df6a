"""Gemma Scope's config, where there is one: Gemma Scope 2 has it, Gemma Scope has none."""

from __future__ import annotations

from collections.abc import Mapping

from loopscope.specs.json_values import Json

GEMMA_SCOPE_ARCHITECTURE = "jumprelu"
"""The architecture of every dictionary of Gemma Scope, by SAELens' name."""
_WRITTEN = "jump_relu"


def check_gemma_scope_config(config: Mapping[str, Json]) -> None:
    """Raise ``ValueError`` unless a ``config.json`` is that of a JumpReLU dictionary."""
    found = config.get("architecture")
    if found != _WRITTEN:
        raise ValueError(f"architecture {str(found)[:60]!r}, expected {_WRITTEN!r}")
