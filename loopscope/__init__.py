"""Loopscope: sparse-autoencoder experiments kept true to their spec.

In Python and in notebooks, ``loopscope.open()`` reads what came out as pandas tables.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopscope.notebook import State

__all__ = ["open"]


def open(path: str | os.PathLike[str] | None = None, *, namespace: str = "default") -> State:
    """Return a state folder to read; nothing in it is ever changed.

    ``path`` is by default what ``LOOPSCOPE_STATE`` names, else ``.loopscope`` here, as for the
    command. Raises FileNotFoundError when there is no state folder, and
    ``state.failures.TerminalFailure`` when another version of Loopscope wrote it.
    """
    from loopscope.notebook import State  # late: the command must start quickly

    return State(path or os.environ.get("LOOPSCOPE_STATE") or ".loopscope", namespace)
