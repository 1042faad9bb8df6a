"""Loopscope: sparse-autoencoder experiments kept true to their spec.

In Python and in notebooks, ``loopscope.open()`` reads what came out as pandas tables.
"""

import os
import sys

# Every start of Python has imported these two; all others are looked for on the path.


class _OurOwnImports:
    """While this lasts, nothing is imported from the folder in which Python was started.

    A notebook or ``python -c`` puts that folder first on the path, and a folder of specs may
    hold a ``json.py`` or a ``queue.py``. A folder that holds Loopscope itself stays.
    """

    def __enter__(self) -> None:
        here = _working_folder()
        entries = () if here == _OURS else ("", here)
        self._left_out = [item for item in enumerate(sys.path) if item[1] in entries]
        for _, entry in self._left_out:
            sys.path.remove(entry)

    def __exit__(self, *_: object) -> None:
        for place, entry in self._left_out:
            sys.path.insert(place, entry)


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib might be imported from there
    except OSError:  # it was deleted
        return ""


_OURS = __file__.rsplit(os.sep, 2)[0]


with _OurOwnImports():
    from importlib.util import find_spec
    from typing import TYPE_CHECKING

    if find_spec("loopscope.specs") is None:
        raise ImportError(
            "this checkout has lost its symbolic links (loopscope/specs -> ../specs, and so on); "
            "clone again with `git -c core.symlinks=true clone`, or install the wheel"
        )

if TYPE_CHECKING:
    from loopscope.notebook import State

__all__ = ["open"]


def open(path: "str | os.PathLike[str] | None" = None, *, namespace: str = "default") -> "State":
    """Return a state folder to read; nothing in it is ever changed.

    ``path`` is by default what ``LOOPSCOPE_STATE`` names, else ``.loopscope`` here, as for the
    command. Raises FileNotFoundError if the state folder does not exist, and
    ``loopscope.state.failures.TerminalFailure`` when another version of Loopscope wrote it.
    """
    with _OurOwnImports():
        from loopscope.notebook import State  # late: the command must start quickly

        return State(path or os.environ.get("LOOPSCOPE_STATE") or ".loopscope", namespace)
