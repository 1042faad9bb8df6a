"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

FileOption = Annotated[
    Path, typer.Option("--filename", "-f", help="YAML file, or a folder read recursively.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that files named in specs must lie under."),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", help="json, yaml, name or wide.")
]
StartsOption = Annotated[
    int, typer.Option("--job-starts-per-minute", min=1, help="Limit of job starts.")
]


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda:\d{1,2}", name):
        raise typer.BadParameter(f"{name!r} is not a device; expected cpu or cuda:N")
    return name


DeviceOption = Annotated[
    str,
    typer.Option("--device", envvar="LOOPSCOPE_DEVICE", help="cpu or cuda:0.", callback=_device),
]
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _byte_count(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; expected for example 0, 500MB or 2GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


FloorOption = Annotated[
    int,
    typer.Option(
        "--free-space-floor",
        metavar="SIZE",
        parser=_byte_count,
        help="Start no job while less is free where the state folder lies.",
    ),
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log every decision to standard error.")
]
ApplySetOption = Annotated[
    str | None,
    typer.Option("--apply-set", help="Name under which these objects belong together."),
]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Delete what this apply set held and no longer holds.")
]
AllowEmptyOption = Annotated[
    bool, typer.Option("--allow-empty", help="Let --prune delete the last object of the set.")
]
ForceOption = Annotated[
    bool, typer.Option("--force-conflicts", help="Take over objects that others apply.")
]
ConfirmOption = Annotated[
    bool, typer.Option("--confirm", help="Discard more than 10 minutes of finished work.")
]
