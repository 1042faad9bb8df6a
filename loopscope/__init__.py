"""Loopscope: sparse-autoencoder experiments kept true to their spec.

In Python and in notebooks, ``loopscope.open()`` reads what came out as pandas tables, and
``loopscope.run()`` does what the command does.
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
    from collections.abc import Callable

    from loopscope.notebook import State

    __version__: str

__all__ = ["__version__", "apply", "open", "run"]


def open(path: "str | os.PathLike[str] | None" = None, *, namespace: str = "default") -> "State":
    """Return a state folder to read; nothing in it is ever changed.

    ``path`` is by default what ``LOOPSCOPE_STATE`` names, else ``.loopscope`` here, as for the
    command. Raises FileNotFoundError if the state folder does not exist, and
    ``loopscope.state.failures.TerminalFailure`` when another version of Loopscope wrote it.
    """
    with _OurOwnImports():
        from loopscope.notebook import State  # late: the command must start quickly

        return State(path or _state_folder(), namespace)


def apply(
    path: "str | os.PathLike[str]",
    *,
    state: "str | os.PathLike[str] | None" = None,
    root: "str | os.PathLike[str] | None" = None,
    confirm: bool = False,
    force_conflicts: bool = False,
) -> "dict[str, str]":
    """Store what a YAML file or folder describes; return what became of each object, by its name.

    ``state`` is the state folder, as for ``open``; it is made if need be. ``root``, ``confirm`` and
    ``force_conflicts`` mean what they mean for ``loopscope apply``. Raises
    ``loopscope.specs.errors.InvalidSpec`` with every problem, and
    ``loopscope.state.failures.Failure``; then nothing was stored.
    """
    with _OurOwnImports():
        from pathlib import Path

        from loopscope import making

        return making.apply(
            Path(path),
            Path(state or _state_folder()),
            root=Path(root) if root is not None else None,
            confirm=confirm,
            force_conflicts=force_conflicts,
        )


def run(
    path: "str | os.PathLike[str]",
    *options: str,
    state: "str | os.PathLike[str] | None" = None,
    progress: "Callable[[str], object] | None" = print,
) -> "State":
    """Apply a YAML file or folder, work until it is settled, and return the state folder.

    ``options`` are those of ``loopscope run``, for example ``"--slots=2"``. ``progress`` gets each
    line that the command prints; None: nothing is said. Interrupted, what is finished stays, and
    the same call goes on. Raises ``loopscope.making.RunFailed`` when not everything became Ready.
    """
    with _OurOwnImports():
        from pathlib import Path

        from loopscope import making

        where = Path(state or _state_folder())
        making.run(Path(path), where, say=progress or (lambda _line: None), options=options)
        return open(where)


def _state_folder() -> str:
    return os.environ.get("LOOPSCOPE_STATE") or ".loopscope"


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("loopscope")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
