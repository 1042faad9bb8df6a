"""The options in ``docs/commands.md``: ``python docs/generate_command_reference.py`` writes them.

The page is written by hand but for what stands between ``<!-- options of … -->`` and
``<!-- end -->``: there, usage and options of a command come from its function in
``loopscope/commands``, an option's meaning from the ``help`` beside it. A test compares the
committed page with what this script returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from loopscope.cli import application

PAGE = Path(__file__).parent / "commands.md"
BLOCK = re.compile(r"<!-- options of ([a-z -]+) -->\n.*?<!-- end -->", flags=re.DOTALL)


def render(page: str) -> str:
    """Return the page with the options of each command that it has a place for.

    Raises KeyError for a command that does not exist.
    """
    program = typer.main.get_command(application())
    known = {"loopscope": program, **{f"loopscope {name}": c for name, c in commands_of(program)}}

    def block(found: re.Match[str]) -> str:
        name = found[1]
        lines = "\n".join(_options(name, known[name]))
        return f"<!-- options of {name} -->\n{lines}\n<!-- end -->"

    return BLOCK.sub(block, page)


def commands_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every visible command with its words, in the order in which help lists them."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield f"{before}{name}", command
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{before}{name} ")


def parameters_of(command: Any) -> list[Any]:
    """Return the arguments and options that help shows, ``--help`` aside."""
    return [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]


def _options(name: str, command: Any) -> Iterator[str]:
    parameters = parameters_of(command)
    options = " [OPTIONS]" if any(_is_option(p) for p in parameters) else ""
    words = "".join(f" {_usage(p)}" for p in parameters if not _is_option(p))
    after = " COMMAND …" if hasattr(command, "commands") else ""
    yield f"```\n{name}{options}{words}{after}\n```"
    if not parameters:
        return
    yield "\n| argument or option | default | meaning |"
    yield "|---|---|---|"
    for parameter in parameters:
        cells = (_names(parameter), _default(parameter), _meaning(parameter))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _is_option(parameter: Any) -> bool:
    return str(parameter.opts[0]).startswith("-")


def _metavar(parameter: Any) -> str:
    words = str(parameter.metavar or parameter.name.upper())
    return words[1:-1] if words.startswith("[") and words.endswith("]") else words


def _usage(parameter: Any) -> str:
    words = _metavar(parameter) + ("…" if parameter.multiple else "")
    return words if parameter.required else f"[{words}]"


def _names(parameter: Any) -> str:
    if not _is_option(parameter):
        return f"`{_metavar(parameter)}`"
    value = f" {parameter.metavar}" if parameter.metavar else ""
    long_first = sorted((*parameter.opts, *parameter.secondary_opts), key=len, reverse=True)
    return ", ".join(f"`{name}{value if name.startswith('--') else ''}`" for name in long_first)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    match parameter.default:
        case None | () | []:
            return ""
        case bool(on):
            return "on" if on else "off"
        case value:
            return f"`{value}`"


def _meaning(parameter: Any) -> str:
    limits = (("at least", parameter.min), ("at most", parameter.max))
    stated = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
    bounds = f" {', '.join(stated).capitalize()}." if stated else ""
    variable = f" Also `{parameter.envvar}`." if parameter.envvar else ""
    many = " May be repeated." if parameter.multiple and _is_option(parameter) else ""
    return f"{parameter.help or ''}{bounds}{variable}{many}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
