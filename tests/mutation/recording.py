"""The record of trials: one line of JSON each, so that an interrupted run goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

KILLED: tuple[str, ...] = ("killed", "timeout")
SURVIVED: tuple[str, ...] = ("survived", "uncovered")


@dataclass(frozen=True)
class Trial:
    """What came of one mutant of one version of its file.

    ``outcome`` is one of KILLED or SURVIVED, or "unviable"; "broken" if the trial went wrong.
    ``by`` is the test that failed; ``tests`` were run, and ``left_out`` of those that run its
    lines were not, since they take too long together.
    """

    key: str
    line: int
    source: str
    outcome: str
    by: str | None
    tests: int
    left_out: int
    seconds: float
    commit: str = ""
    date: str = ""


@dataclass(frozen=True)
class Record:
    """A file of trials; the last one of a mutant counts."""

    path: Path

    def trials(self) -> dict[tuple[str, str], Trial]:
        """Return the trials by mutant and version; a line cut off by a crash is none."""
        if not self.path.exists():
            return {}
        found = {}
        for line in self.path.read_text().splitlines():
            try:
                trial = Trial(**json.loads(line))
            except json.JSONDecodeError:
                continue
            found[trial.key, trial.source] = trial
        return found

    def add(self, trial: Trial) -> None:
        """Append a trial."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(trial), ensure_ascii=False)
        with self.path.open("a+b") as file:
            file.seek(0, 2)
            whole = file.tell() == 0 or self.path.read_bytes()[-1:] == b"\n"
            file.write((b"" if whole else b"\n") + line.encode() + b"\n")
