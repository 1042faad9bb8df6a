"""The options that limit what a controller starts, and the settings that they and the file give."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from loopscope.commands.options import read_size
from loopscope.specs.devices import device_name

if TYPE_CHECKING:
    from loopscope.controller.config import GivenSettings

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
    typer.Option("--slots", metavar="[DEVICE=]N", help="Jobs at once, of all or of one device."),
]
MemoryOption = Annotated[
    list[str] | None,
    typer.Option("--memory", metavar="[DEVICE=]SIZE", help="What jobs may use at once."),
]


def _executor(text: str | None) -> str | None:
    if text not in (None, "processes", "ray"):
        raise typer.BadParameter(f"{text!r} is not an executor; expected processes or ray")
    return text


def _ray_address(text: str | None) -> str | None:
    from loopscope.controller.config import cluster_address  # late: help must stay quick

    try:
        return cluster_address(text) if text is not None else None
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}") from None


ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor", metavar="NAME", help="What places jobs: processes or ray.", callback=_executor
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Head of the Ray cluster; auto: this machine's; local: a new one on this machine.",
        callback=_ray_address,
    ),
]
ShareOption = Annotated[
    int | None,
    typer.Option("--slots-per-experiment", min=1, help="Jobs of one experiment at once."),
]


_SETTING_BY_OPTION = {
    "job_starts_per_minute": "job_starts_per_minute",
    "burst": "burst",
    "slots_per_experiment": "slots_per_experiment",
    "free_space_floor": "free_space_floor_bytes",
    "executor": "executor",
    "ray_address": "ray_address",
}


def settings_from(context: typer.Context) -> GivenSettings:
    """Return settings: the option of the command, else the value in the file.

    Raises InvalidSpec when the file is wrong, and when ``--config`` names none.
    """
    from loopscope.controller.config import load_config  # late: help must stay quick

    options, state_path = context.params, context.obj.state_path
    config = options["config"]
    settings = load_config(config).settings() if config else settings_of_file(state_path)
    in_file = settings.get("slots_by_device", {})
    wanted = options["device"]
    device = wanted or next(iter(in_file), "cpu")
    if wanted and wanted not in in_file:
        settings.pop("slots_by_device", None)
    slots = _by_device(options["slots"], device, "--slots", _count)
    memory = _by_device(options["memory"], device, "--memory", read_size)
    settings["device"] = device
    if slots:
        settings["slots_by_device"] = slots
    if memory:
        settings["memory_bytes"] = memory
    given = _SETTING_BY_OPTION.items()
    typed = {name: options[option] for option, name in given if options[option] is not None}
    settings.update(cast("GivenSettings", typed))
    return settings


def settings_of_file(state_path: Path) -> GivenSettings:
    """Return the settings in the file beside a state folder; none without a file."""
    from loopscope.controller.config import settings_beside  # late: help must stay quick

    return settings_beside(state_path)


def _by_device(
    given: list[str] | None, device: str, option: str, read: Callable[[str], int]
) -> dict[str, int]:
    found = {}
    for text in given or []:
        name, equals, value = text.rpartition("=")
        try:
            name = device_name(name) if equals else device
        except ValueError as error:
            raise typer.BadParameter(f"{option} {text!r}: {error}") from None
        if name in found:
            raise typer.BadParameter(f"{option} is given twice for {name}; give one")
        found[name] = read(value)
    return found


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d?", text):
        raise typer.BadParameter(f"--slots {text!r}: expected a number from 1 to 99")
    return int(text)
