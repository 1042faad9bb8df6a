"""The command line's grammar: as in kubectl, and nothing is dropped in silence."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from loopscope.context import CommandError, Globals

_BARE = {"--dry-run": "client"}
"""What an option means when it is given without ``=value``."""
_SHORT_WITH_VALUE = re.compile(r"(-[A-Za-z]+)=(.*)", re.DOTALL)


class _Strict:
    """Refuses an option with one value that is given twice: either could be meant."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, also --help, each with its reader."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if "get_runtime_param" not in vars(parameter):
                parameter.get_runtime_param = _AsTyped(parameter).reader
        return parameters

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(_as_click_reads(args))
        if words:
            seen = set()
            for parameter in self.make_parser(ctx).parse_args(args=list(words))[2]:  # type: ignore[attr-defined]
                if parameter.name in seen and _has_one_value(parameter):
                    raise CommandError(f"{max(parameter.opts, key=len)} is given twice; give one")
                seen.add(parameter.name)
        return super().parse_args(ctx, words)  # type: ignore[misc,no-any-return]


class Command(_Strict, TyperCommand):
    """A subcommand."""


class Group(_Strict, TyperGroup):
    """The program itself."""


class Application(typer.Typer):
    """A program whose common options may stand before and after the subcommand."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a subcommand."""
        register = super().command(name, cls=Command, **settings)
        return lambda function: register(_with_common_options(function))


class _AsTyped:
    """Takes text as it was typed and defaults as they are, and has typer read all else.

    typer reads all with pydantic, whose import is a fifth of the time of a short command.
    """

    def __init__(self, parameter: Any) -> None:
        self._annotation = parameter.type_descriptor.annotation
        self._typers_reader = parameter.get_runtime_param

    def reader(self) -> _AsTyped:
        """Return what coerces the values of the parameter."""
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a value as its annotation wants it; raises typer's BadParameter."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if isinstance(self._annotation, type) and isinstance(value, self._annotation):
            return value
        if self._annotation == list[str] and isinstance(value, (list, tuple)):
            return list(value)
        return self._typers_reader().coerce(value, param=param, ctx=ctx)


def _as_click_reads(words: Sequence[str]) -> Iterator[str]:
    """Yield the words with kubectl's ``-o=name`` in two, and bare options completed.

    Words that were yielded once are yielded again as they are.
    """
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield word
            yield from rest
            return
        match = _SHORT_WITH_VALUE.fullmatch(word)
        if match is not None:
            yield from match.groups()
        else:
            yield f"{word}={_BARE[word]}" if word in _BARE else word


def _has_one_value(parameter: Any) -> bool:
    is_option = str(parameter.opts[0]).startswith("-")
    return is_option and not parameter.multiple and not parameter.is_flag


def _state(context: typer.Context, state: str | None) -> None:
    given: Globals = context.obj
    if state is not None and given is not None:
        _refuse_second("--state", given.state_given)
        context.obj = replace(given, state=state)


def _namespace(context: typer.Context, name: str | None) -> None:
    given: Globals = context.obj
    if name is not None and given is not None:
        _refuse_second("--namespace", given.namespace_given)
        context.obj = replace(given, namespace=name, namespace_given=True)


def _refuse_second(option: str, given: bool) -> None:
    if given:
        raise CommandError(f"{option} is given before and after the command; give one")


_COMMON = {
    "common_state": Annotated[str | None, typer.Option("--state", callback=_state, hidden=True)],
    "common_namespace": Annotated[
        str | None, typer.Option("--namespace", "-n", callback=_namespace, hidden=True)
    ],
}


def _with_common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a subcommand that also takes what may stand before it."""

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        own = {name: value for name, value in options.items() if name not in _COMMON}
        return function(*args, **own)

    signature = inspect.signature(function, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    parameters = [*signature.parameters.values(), *common]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called
