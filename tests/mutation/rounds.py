"""One round of trials: what can be tried warm, then the rest cold."""

from __future__ import annotations

import datetime
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.mutation.covering import Covering, Traced
from tests.mutation.forks import Children
from tests.mutation.operators import Mutant
from tests.mutation.recording import Record, Trial
from tests.mutation.trials import Cold, Readers, Sources, Trials, covering_tests
from tests.mutation.warm import COLD, Warm, with_collected

WARM_SECONDS_MIN, COLD_SECONDS_MIN = 10.0, 30.0
"""Processor time that a child may take on top; a cold one imports everything."""


@dataclass(frozen=True)
class Round:
    """What the trials of one call share; each outcome goes into the record."""

    sources: Sources
    files: Sequence[str]
    tests: Covering
    record: Record
    commit: str
    processes: int
    seconds: float
    scratch: Path
    test_files: Sequence[str]
    say: Callable[[str], object]

    def try_all(self, wanted: Sequence[Mutant], *, warm: bool) -> set[str]:
        """Try mutants; return the keys of those whose trial went wrong."""
        readers = Readers(self.sources, self.files)
        pairs = [(mutant, covering_tests(mutant, self.tests, readers)) for mutant in wanted]
        judged = self._warm(pairs) if warm else set()
        rest = [pair for pair in pairs if pair[0].key not in judged]
        with closing(Children(self.scratch)) as children:
            trials = Trials(
                *(self.sources, children, self.processes, Cold(self.sources).attempt),
                *(COLD_SECONDS_MIN, self._earlier()),
            )
            return self._run(trials, rest, set())

    def _earlier(self) -> list[Trial]:
        return [each for each in self.record.trials().values() if each.outcome == "killed"]

    def _warm(self, pairs: list[tuple[Mutant, list[Traced]]]) -> set[str]:
        """Try what can be tried in a warm process, which ends; return the keys of what was."""
        with tempfile.TemporaryDirectory(prefix="warm-", dir=self.scratch) as folder:
            judged = Path(folder) / "judged"
            judged.touch()
            work = partial(self._with_warm, pairs, judged)
            collect = partial(
                with_collected, self.sources, self.files, self.test_files, Path(folder), work
            )
            process = multiprocessing.get_context("fork").Process(target=collect)
            process.start()
            process.join()
            return set(judged.read_text().splitlines())

    def _with_warm(
        self, pairs: list[tuple[Mutant, list[Traced]]], judged: Path, warm: Warm
    ) -> None:
        possible = [pair for pair in pairs if warm.can_try(pair[0])]
        self.say(f"{len(possible)} of {len(pairs)} mutants warm, {len(warm.session.items)} tests")
        with closing(Children(judged.parent)) as children:
            trials = Trials(
                *(self.sources, children, self.processes, warm.attempt),
                *(WARM_SECONDS_MIN, self._earlier()),
            )
            left = self._run(trials, possible, {COLD})
        judged.write_text("\n".join({mutant.key for mutant, _ in possible} - left))

    def _run(
        self, trials: Trials, pairs: list[tuple[Mutant, list[Traced]]], later: set[str]
    ) -> set[str]:
        """Record trials; return the keys of those that went wrong, or are for later."""
        left: set[str] = set()
        for trial in trials.run(pairs, self.seconds):
            by = trial.by or ""
            self.say(f"{trial.outcome:9} {trial.seconds:6.1f} s  {trial.key}  {by}")
            if trial.outcome == "broken" or trial.outcome in later:
                left.add(trial.key)
                continue
            today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
            self.record.add(replace(trial, commit=self.commit, date=today))
        return left
