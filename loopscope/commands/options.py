"""Options that several commands share."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from loopscope.specs.devices import device_name
from loopscope.specs.sizes import byte_count
from loopscope.specs.yaml.spec_sources import STANDARD_INPUT
from loopscope.state.orders import STOP_GRACE_SECONDS


def _spec_path(text: str) -> Path:
    return STANDARD_INPUT if text == "-" else Path(text)


_FILE_OPTION = typer.Option(
    "--filename",
    "-f",
    metavar="PATH",
    parser=_spec_path,
    help="YAML file, a folder read recursively, or - for standard input.",
)
FilesOption = Annotated[list[Path], _FILE_OPTION]
FilesOrElseOption = Annotated[list[Path] | None, _FILE_OPTION]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that files named in specs must lie under."),
]


def _dry_run_form(form: str) -> str:
    if form not in ("none", "client", "server"):
        raise typer.BadParameter(f"{form!r} is not known; expected client, server or none")
    return form


DryRunOption = Annotated[
    str,
    typer.Option(
        "--dry-run",
        metavar="[client|server|none]",
        help="Check only, store nothing. client and server are the same.",
        callback=_dry_run_form,
    ),
]
OUTPUTS = ("json", "yaml", "name", "wide", "jsonpath=", "custom-columns=")
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="json, yaml, name, wide, jsonpath=… or custom-columns=….",
        autocompletion=lambda: OUTPUTS,
    ),
]
StartsOption = Annotated[
    int | None,
    typer.Option(
        "--job-starts-per-minute",
        min=1,
        help="Limit of job starts in any 60 seconds, counted across restarts.",
    ),
]


def _device(name: str | None) -> str | None:
    try:
        return device_name(name) if name is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", envvar="LOOPSCOPE_DEVICE", help="cpu, cuda or cuda:N.", callback=_device
    ),
]


def read_size(text: str) -> int:
    """Return the bytes that an option's value stands for."""
    size = byte_count(text)
    if size is None:
        raise typer.BadParameter(f"{text!r} is not a size; expected for example 0, 500MB or 2GiB")
    return size


FloorOption = Annotated[
    int | None,
    typer.Option(
        "--free-space-floor",
        metavar="SIZE",
        parser=read_size,
        help="Start no job while less is free where the state folder lies.",
    ),
]
SECONDS_TO_END = STOP_GRACE_SECONDS + 5.0
"""What stopping takes at most: the grace of the workers, and the last lines."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h``, ``7d`` or a plain number of seconds.

    Raises ValueError.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(s|m|h|d)?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; expected for example 90s, 10m or 7d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def read_duration(text: str) -> float:
    """Return the seconds that an option's value stands for."""
    try:
        return duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


RunTimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        parser=read_duration,
        help="Give up after this long: 90s, 10m, 2h.",
    ),
]


def seconds_until(text: str, now: float) -> float:
    """Return the seconds from ``now`` (Unix) to the end of a duration, or to a moment.

    A moment is a date with a time of day as in ``2026-11-29T18:30:00``, of this machine's zone
    unless it names one, or Unix seconds as in ``@1795977000``. Raises ValueError.
    """
    if text.startswith("@") and text[1:].isdecimal():
        return float(text[1:]) - now
    try:
        return datetime.fromisoformat(text).timestamp() - now if "T" in text else duration(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a duration nor a moment; expected for example 4h, "
            "2026-11-29T18:30:00 or @1795977000"
        ) from None


def _seconds_to_work(text: str) -> float:
    try:
        seconds = seconds_until(text, time.time()) - SECONDS_TO_END
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if seconds <= 0:
        raise typer.BadParameter(
            f"{text!r} leaves no time to work: ending takes up to {SECONDS_TO_END:.0f} s"
        )
    return seconds


StopBeforeOption = Annotated[
    float | None,
    typer.Option(
        "--stop-before",
        metavar="TIME",
        parser=_seconds_to_work,
        help="Have ended, at a finished shard, before then: 4h, 2026-11-29T18:30:00 or @SECONDS.",
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        "--grace", metavar="TIME", parser=read_duration, help="How long unneeded things are kept."
    ),
]
TrashOption = Annotated[
    float,
    typer.Option(
        "--empty-trash-after",
        metavar="TIME",
        parser=read_duration,
        help="How long the trash is kept.",
    ),
]


def _log_format(text: str) -> str:
    if text not in ("console", "json"):
        raise typer.BadParameter(f"{text!r} is not a log format; expected console or json")
    return text


LogFormatOption = Annotated[
    str, typer.Option("--log-format", help="console or json.", callback=_log_format)
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
    bool,
    typer.Option(
        "--confirm", help="Discard more than 10 minutes of finished work, or any after an upgrade."
    ),
]
