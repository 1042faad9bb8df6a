"""SAELens' own folders: a config and the weights beside it, read in ``inputs.saelens_config``."""

from __future__ import annotations

import re

from loopscope.inputs.layouts.layout import Entry, Files, Known, Layout

_HOOK = re.compile(r"(blocks\.\d+\.(?:[a-z0-9]+\.)?hook_[a-z_]*[a-z])(?:_\d+)?")
"""An id is a hook, with the width behind it where a release has several at one hook."""


def _files(entry: Entry) -> Files:
    return Files(entry.path, ("cfg.json",), ("sae_weights.safetensors",))


def _known(entry: Entry) -> Known:
    """Return the hook that the id names; the config says it again, and the architecture."""
    found = _HOOK.fullmatch(entry.id)
    return Known(hook=found[1] if found else None)


SAELENS = Layout("saelens", "sae_lens", _files, _known)
