"""The options that limit what a controller starts, and the settings that they and the file give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from loopscope.commands.options import read_size

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Limits as YAML; without it, STATE.conf beside the folder."),
]
BurstOption = Annotated[
    int | None,
    typer.Option("--burst", min=1, help="Job starts at once; then they are spread evenly."),
]
SlotsOption = Annotated[
    list[str] | None,
    typer.Option("--slots", metavar="[DEVICE=]N", help="Jobs at once; may be repeated."),
]
MemoryOption = Annotated[
    list[str] | None,
    typer.Option("--memory", metavar="[DEVICE=]SIZE", help="What jobs may use at once."),
]
ShareOption = Annotated[
    int | None,
    typer.Option("--slots-per-experiment", min=1, help="Jobs of one experiment at once."),
]


def settings_from(state_path: Path, config: Path | None, **options: Any) -> dict[str, Any]:
    """Return settings: what an option says, else what the file says.

    Raises InvalidSpec when the file is wrong, and when ``config`` does not exist.
    """
    from controller.config import load_config  # late: help must stay quick

    said = load_config(config).settings() if config else settings_of_file(state_path)
    in_file = said.get("slots_by_device", {})
    wanted = options.pop("device")
    device = wanted or next(iter(in_file), "cpu")
    if wanted and wanted not in in_file:
        said.pop("slots_by_device", None)
    slots = _by_device(options.pop("slots"), device, "--slots", _count)
    memory = _by_device(options.pop("memory"), device, "--memory", read_size)
    said["device"] = device
    said |= {name: value for name, value in options.items() if value is not None}
    said |= {"slots_by_device": slots} if slots else {}
    said |= {"memory_bytes": memory} if memory else {}
    return said


def settings_of_file(state_path: Path) -> dict[str, Any]:
    """Return the settings that the file beside a state folder says; none without a file."""
    from controller.config import config_beside, load_config  # late: help must stay quick

    path = config_beside(state_path)
    return load_config(path).settings() if path.is_file() else {}


def _by_device(given: list[str] | None, device: str, option: str, read: Any) -> dict[str, int]:
    found = {}
    for text in given or []:
        name, equals, value = text.rpartition("=")
        name = name if equals else device
        if not re.fullmatch(r"cpu|cuda:\d{1,2}", name):
            raise typer.BadParameter(f"{option} {text!r}: expected cpu=… or cuda:0=…")
        found[name] = read(value)
    return found


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d?", text):
        raise typer.BadParameter(f"--slots {text!r}: expected a number from 1 to 99")
    return int(text)
