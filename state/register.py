"""The register of a state folder: ``register/<number>.json``, one after another, never changed.

A record is put under its number by a link, which fails where that number is taken: of two that are
written at once one takes the next number. Nothing collects or edits them.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.specs.registration import (
    BrokenChain,
    InForce,
    Intention,
    RegisterExtract,
    Registration,
    check_chain,
    in_force,
    placed,
)
from loopscope.state.files import fsync_path

REGISTRATIONS_MAX = 10_000
TRIES_MAX = 100


def registrations(folder: Path) -> list[Registration]:
    """Return the records in their order. Raises BrokenChain."""
    found: list[Registration] = []
    for number, name in enumerate(sorted(path.name for path in folder.glob("[0-9]*.json")), 1):
        if name != _name(number):
            raise BrokenChain(f"{folder} lacks {_name(number)}")
        try:
            found.append(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError) as error:
            raise BrokenChain(f"{folder / name} cannot be read: {error}") from None
    check_chain(found)
    return found


def append(folder: Path, intention: Intention, registered_at: str) -> Registration:
    """Write an intention behind all others, durably; return it in its place.

    Raises BrokenChain, and ValueError where as many as may be are there.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for _ in range(TRIES_MAX):
        known = registrations(folder)
        if len(known) >= REGISTRATIONS_MAX:
            raise ValueError(f"{folder} holds {REGISTRATIONS_MAX:,} registrations, and no more")
        previous = known[-1]["digest"] if known else None
        record = placed(intention, len(known) + 1, previous, registered_at)
        if _put(folder / _name(record["number"]), record):
            return record
    raise ValueError(f"others write to {folder} all the time; try again")


def extract(folder: Path, experiment: str) -> RegisterExtract | None:
    """Return what a bundle of an experiment holds, None where it was not registered.

    ``experiment`` is ``namespace/name``. Raises BrokenChain.
    """
    known = registrations(folder)
    own = [record for record in known if record["experiment"] == experiment]
    return {"chain": [record["digest"] for record in known], "records": own} if own else None


@dataclass
class Intentions:
    """What the experiments of a register intend, read again where a record was added.

    The chain is checked by who cites it (``registrations``), not here.
    """

    folder: Path
    _seen: int | None = None
    _known: dict[str, InForce] = field(default_factory=dict)

    def of(self, experiment: str) -> InForce | None:
        """Return what is in force for ``namespace/name``; None where it was not registered."""
        try:
            seen = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if seen != self._seen:
            self._known = _in_force(self.folder)
            self._seen = seen
        return self._known.get(experiment)


def _in_force(folder: Path) -> dict[str, InForce]:
    records: dict[str, list[Registration]] = {}
    for name in sorted(path.name for path in folder.glob("[0-9]*.json")):
        try:
            record: Registration = json.loads((folder / name).read_text(encoding="utf-8"))
            records.setdefault(record["experiment"], []).append(record)
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            continue  # a chain that is broken is refused where it is cited
    known = {experiment: in_force(own) for experiment, own in records.items()}
    return {experiment: found for experiment, found in known.items() if found is not None}


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _put(path: Path, record: Registration) -> bool:
    """Put a record under its name; return False where the name is taken."""
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o400)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)
    fsync_path(path.parent)
    return True
