"""A mutant in the place of functions that live: nothing is imported anew."""

from __future__ import annotations

import gc
import inspect
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType, FunctionType


class CannotSwapError(Exception):
    """A change that no living function can take."""


class Living:
    """The functions of some files as they live in this process, found once."""

    def __init__(self, files: Collection[Path]) -> None:
        functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
        resolved = {
            name: Path(name).resolve() for name in {f.__code__.co_filename for f in functions}
        }
        self._of: dict[Path, list[FunctionType]] = defaultdict(list)
        for function in functions:
            file = resolved[function.__code__.co_filename]
            if file in files:
                self._of[file].append(function)

    def swap(self, file: Path, before: bytes, after: bytes) -> None:
        """Give the functions of a file for good the code that they have in another source.

        Raises SyntaxError, and CannotSwapError if something else than functions is changed, or
        one that does not live, or whose closure would be of another size.
        """
        old, new = (compile(source, file, "exec", dont_inherit=True) for source in (before, after))
        for was, becomes in _changed(old, new):
            living = [each for each in self._of[file] if each.__code__ == was]
            if not living:
                raise CannotSwapError(f"no {was.co_qualname} lives")
            for function in living:
                try:
                    function.__code__ = becomes
                except ValueError as refused:
                    raise CannotSwapError(str(refused)) from None


def _changed(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yield the code of the outermost functions that are changed, before and after."""
    if not _alike(old, new):
        raise CannotSwapError(f"{old.co_qualname} is no function")
    for was, becomes in zip(_inside(old), _inside(new), strict=True):
        if not was.co_flags & inspect.CO_OPTIMIZED:
            yield from _changed(was, becomes)  # the body of a class
        elif not _same(was, becomes):
            yield was, becomes


def _same(old: CodeType, new: CodeType) -> bool:
    """Whether two codes do the same, whatever their lines."""
    inside = zip(_inside(old), _inside(new), strict=False)
    return _alike(old, new) and all(_same(was, becomes) for was, becomes in inside)


def _alike(old: CodeType, new: CodeType) -> bool:
    """Whether two codes differ at most in the functions and classes inside of them."""
    return _own(old) == _own(new)


def _own(code: CodeType) -> tuple[object, ...]:
    constants = [(type(c), c) for c in code.co_consts if not isinstance(c, CodeType)]
    inside = [each.co_name for each in _inside(code)]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, code.co_exceptiontable, repr(constants), inside, names)


def _inside(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]
