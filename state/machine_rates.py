"""Rates of machines, as probes measured them: what a plan reckons with for shapes that never ran.

One JSON file in the cache folder, an entry for each machine and device. A worker writes its entry;
the control plane only reads. Losing the file costs another probe.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from loopscope.specs.files import read_at_most

RATES_FILE = Path("loopscope", "machine-rates.json")
"""Below the cache folder."""
RATES_BYTES_MAX = 2**20
MACHINES_MAX = 200


@dataclass(frozen=True)
class MachineRates:
    """What a device did at best.

    ``flops`` a second in a plain float32 product, with ``threads`` threads on a processor, and
    ``bandwidth`` in bytes read and written a second by a plain copy. ``measured_at`` is in Unix
    seconds.
    """

    flops: float
    bandwidth: float
    threads: int
    measured_at: float


def read_rates(cache: Path, device: str = "cpu") -> MachineRates | None:
    """Return the rates of this machine, None where no probe wrote them or they cannot be read."""
    found = _read(cache / RATES_FILE).get(_name(device))
    try:
        rates = MachineRates(**found) if isinstance(found, dict) else None
        return rates if rates is not None and min(rates.flops, rates.bandwidth) > 0 else None
    except TypeError:
        return None  # of another version, or edited


def write_rates(cache: Path, device: str, rates: MachineRates) -> None:
    """Write the rates of this machine in place of those that stood there. Raises OSError."""
    path = cache / RATES_FILE
    others = {name: one for name, one in _read(path).items() if name != _name(device)}
    kept = dict(list(others.items())[-(MACHINES_MAX - 1) :])
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            json.dump({**kept, _name(device): asdict(rates)}, stream, indent=1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _name(device: str) -> str:
    return f"{platform.node()} {device}"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(read_at_most(path, RATES_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
