"""Options that several commands share."""

from __future__ import annotations

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
DeviceOption = Annotated[
    str, typer.Option("--device", envvar="LOOPSCOPE_DEVICE", help="cpu or cuda:0.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log every decision to standard error.")
]
