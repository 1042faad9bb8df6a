"""Write ``docs/cli.md`` from the commands: ``python docs/generate_command_reference.py``.

All facts come from the functions in ``loopscope/commands``: a command's text is its docstring, an
option's the ``help`` beside it. A test compares the committed page with what this script returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from loopscope.cli import application

PAGE = Path(__file__).parent / "cli.md"
HEADER = """# Command line reference

Generated from the commands by `docs/generate_command_reference.py`; do not edit by hand. How the
commands behave, what they exit with and how they go together: [commands](commands.md).
"""


def render() -> str:
    """Return the page."""
    program = typer.main.get_command(application())
    sections = [HEADER, *_section("loopscope", program, arguments=" COMMAND …")]
    for name, command in commands_of(program):
        sections.extend(_section(f"loopscope {name}", command))
    return "\n".join(sections).rstrip() + "\n"


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


def _section(title: str, command: Any, arguments: str = "") -> Iterator[str]:
    yield f"## {title}\n"
    parameters = parameters_of(command)
    options = " [OPTIONS]" if any(_is_option(p) for p in parameters) else ""
    words = "".join(f" {_usage(p)}" for p in parameters if not _is_option(p))
    yield f"```\n{title}{options}{words}{arguments}\n```\n"
    yield f"{_paragraphs(command.help or '')}\n"
    if not parameters:
        return
    yield "| argument or option | default | meaning |"
    yield "|---|---|---|"
    for parameter in parameters:
        cells = (_names(parameter), _default(parameter), _meaning(parameter))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


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
    told = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
    bounds = f" {', '.join(told).capitalize()}." if told else ""
    variable = f" Also `{parameter.envvar}`." if parameter.envvar else ""
    many = " May be repeated." if parameter.multiple and _is_option(parameter) else ""
    return f"{parameter.help or ''}{bounds}{variable}{many}"


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
