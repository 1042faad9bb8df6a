"""Loopscope: sparse-autoencoder experiments kept true to their spec.

In Python and in notebooks, ``loopscope.open()`` reads what came out as pandas tables.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopscope.notebook import State

__all__ = ["open"]

if find_spec("loopscope.specs") is None:
    raise ImportError(
        "this checkout has lost its symbolic links (loopscope/specs -> ../specs, and so on); "
        "clone again with `git -c core.symlinks=true clone`, or install the wheel"
    )


def open(path: str | os.PathLike[str] | None = None, *, namespace: str = "default") -> State:
    """Return a state folder to read; nothing in it is ever changed.

    ``path`` is by default what ``LOOPSCOPE_STATE`` names, else ``.loopscope`` here, as for the
    command. Raises FileNotFoundError when there is no state folder, and
    ``loopscope.state.failures.TerminalFailure`` when another version of Loopscope wrote it.
    """
    from loopscope.notebook import State  # late: the command must start quickly

    return State(path or os.environ.get("LOOPSCOPE_STATE") or ".loopscope", namespace)
