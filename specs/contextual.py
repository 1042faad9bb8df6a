"""Rules of dictionaries that read the tokens before as well: each row means little by itself."""

from __future__ import annotations

CONTEXTUAL = frozenset({"temporal"})
"""Architectures whose latents read a row in its text, from the text's BOS on."""


def why_not_steered(architecture: str | None) -> str | None:
    """Return why nothing is steered along latents of this architecture; None if it can be."""
    if architecture not in CONTEXTUAL:
        return None
    return (
        f"the latents of a {architecture} dictionary read the tokens before as well, and what "
        "steering does to them is measured token by token; leave steering out, or choose another "
        "dictionary"
    )
