"""The score as a section of a page: what was tried, killed, left, and why what is left is left."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.operators import Mutant
from tests.mutation.recording import KILLED, SURVIVED, Trial

BEGIN = "<!-- mutation: written by `python -m tests.mutation --report`, not by hand -->"
END = "<!-- mutation: end -->"
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Reason:
    """Why a mutant lives: it changes nothing that can be seen, or what it changes is not held."""

    equivalent: bool
    text: str


@dataclass(frozen=True)
class Count:
    """A row of the table: trials of viable mutants, without those still to be tried."""

    name: str
    wanted: int
    tried: int
    killed: int
    equivalent: int

    @property
    def score(self) -> str:
        """The share killed of those that are not equivalent, with its interval."""
        of = self.tried - self.equivalent
        if not of:
            return "-"
        low, high = wilson(self.killed, of)
        return f"{self.killed / of:.1%} ({low:.1%} to {high:.1%})"


def wilson(successes: int, number: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    share, z2 = successes / number, NORMAL_95**2
    middle = share + z2 / (2 * number)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / number + z2 / (4 * number**2))
    return (middle - half) / (1 + z2 / number), (middle + half) / (1 + z2 / number)


def read_reasons(path: Path) -> dict[str, Reason]:
    """Return the reasons by mutant. Raises ValueError for one without a reason."""
    reasons = {}
    for entry in tomllib.loads(path.read_text()).get("survivor", []):
        for mutant in entry["mutants"]:
            if not entry["reason"].strip():
                raise ValueError(f"{mutant} has no reason")
            reasons[mutant] = Reason(entry.get("equivalent", False), entry["reason"])
    return reasons


def section(
    groups: Mapping[str, Sequence[Mutant]],
    trials: Mapping[str, Trial],
    reasons: Mapping[str, Reason],
) -> str:
    """Return the section, marks included. ``trials`` are those of the sources as they are."""
    tried = [trials[m.key] for m in _once(groups) if m.key in trials]
    tried = [trial for trial in tried if trial.outcome != "unviable"]
    if not tried:
        return f"{BEGIN}\nNothing was tried yet.\n{END}"
    dates, commits = sorted({t.date for t in tried}), sorted({t.commit for t in tried})
    slow = sum(trial.outcome == "timeout" for trial in tried)
    short = sum(trial.outcome in SURVIVED and trial.left_out > 0 for trial in tried)
    lines = [
        BEGIN,
        f"Run {' to '.join(dict.fromkeys((dates[0], dates[-1])))} at {', '.join(commits)}; "
        f"{len(tried):,} mutants tried, {slow} of them killed by their time limit; {short} that "
        "live were not tried against all tests of their lines, so the scores are lower bounds.",
        "",
        "| mutants | tried | killed | equivalent | survived | killed but for equivalents (95 %) |",
        "|---|---|---|---|---|---|",
        *(_row(_count(name, mutants, trials, reasons)) for name, mutants in groups.items()),
        "",
        *_survivors(_once(groups), trials, reasons),
        END,
    ]
    return "\n".join(lines)


def replaced(page: str, text: str) -> str:
    """Return a page with another section between the marks. Raises ValueError without marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no section between {BEGIN} and {END}")
    return before + text + after


def _once(groups: Mapping[str, Sequence[Mutant]]) -> list[Mutant]:
    found = {mutant.key: mutant for mutants in groups.values() for mutant in mutants}
    return sorted(found.values(), key=lambda mutant: (mutant.path, mutant.start, mutant.key))


def _count(
    name: str,
    mutants: Sequence[Mutant],
    trials: Mapping[str, Trial],
    reasons: Mapping[str, Reason],
) -> Count:
    of_these = [trials[mutant.key] for mutant in mutants if mutant.key in trials]
    unviable = sum(trial.outcome == "unviable" for trial in of_these)
    survivors = [trial.key for trial in of_these if trial.outcome in SURVIVED]
    return Count(
        name=name,
        wanted=len(mutants) - unviable,
        tried=len(of_these) - unviable,
        killed=sum(trial.outcome in KILLED for trial in of_these),
        equivalent=sum(key in reasons and reasons[key].equivalent for key in survivors),
    )


def _row(count: Count) -> str:
    survived = count.tried - count.killed - count.equivalent
    tried = f"{count.tried:,}" + (f" of {count.wanted:,}" if count.tried < count.wanted else "")
    return (
        f"| {count.name} | {tried} | {count.killed:,} | {count.equivalent} | {survived} "
        f"| {count.score} |"
    )


def _survivors(
    mutants: Iterable[Mutant], trials: Mapping[str, Trial], reasons: Mapping[str, Reason]
) -> list[str]:
    rows = []
    for mutant in mutants:
        trial = trials.get(mutant.key)
        if trial is not None and trial.outcome in SURVIVED:
            rows.append(f"| {_cell(mutant.key)} | {_why(trial, reasons.get(mutant.key))} |")
    return ["| survivor | reason |", "|---|---|", *rows] if rows else ["No mutant survived."]


def _why(trial: Trial, reason: Reason | None) -> str:
    if reason is not None:
        return f"{'equivalent: ' if reason.equivalent else ''}{reason.text}"
    if trial.outcome == "uncovered":
        return "no fast test runs this line in its own process"
    left = f"; {trial.left_out} slower ones were not run" if trial.left_out else ""
    return f"not looked at yet: {trial.tests} tests that run the line pass{left}"


def _cell(key: str) -> str:
    """Return a mutant as code in a cell, where neither bars nor backquotes end it."""
    place, change = key.split(": ", 1)
    return f"{place}: `` {change} ``".replace("|", "\\|")
