"""What ``run`` shows while it works: stages, progress, time left, and why something waits."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loopscope.commands.queue import job_detail
from loopscope.controller.settled import family
from loopscope.reports.listing import stage_word
from loopscope.specs.keys import Key
from loopscope.state import jobs
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord


class LiveView:
    """A table that is redrawn on a terminal; elsewhere one line per change."""

    def __init__(self, state: StateFolder, keys: list[Key]) -> None:
        self._state = state
        self._keys = keys
        usual = state.path == Path(".loopscope").resolve()
        self._option = "" if usual else f" --state {state.path}"
        self._console = Console(highlight=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._said: dict[Key, str] = {}
        self._in_trouble = False

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text)

    def tell_trouble(self, trouble: str | None) -> None:
        """Say once what keeps the controller from its work, and once that it is over."""
        if (trouble is None) == self._in_trouble:
            self._in_trouble = trouble is not None
            words = f"cannot do everything now; trying again: {trouble}"
            self.note(words if trouble is not None else "the trouble is over")

    def refresh(self) -> None:
        """Show the newest state."""
        rows = self._rows()
        if self._console.is_terminal:
            self._live.update(_table(rows), refresh=True)
            return
        for key, word, detail in rows:
            if self._said.get(key) != word:
                self._said[key] = word
                self._console.print(f"{key}: {word}{_because(word, detail)}", soft_wrap=True)

    def print_outcome(self) -> list[ObjectRecord]:
        """Print the end state of each applied object; return all records."""
        with self._state.database.read() as connection:
            records = family(connection, self._keys)
        for record in records:
            if record.key in self._keys or _is_root_cause(record):
                self._console.print(outcome_line(record, self._option), soft_wrap=True)
        return records

    def _rows(self) -> list[tuple[Key, str, str]]:
        with self._state.database.read() as connection:
            records = family(connection, self._keys)
            progress = jobs.progress_of(connection)
            active = {job.digest: job for job in jobs.listed(connection)}
        rows = []
        for record in records:
            job = active.get(record.wanted_digest or "")
            ready = record.status.condition("Ready")
            held = ready is not None and ready.reason == "Suspended"
            if job is not None and not held:
                detail = job_detail(job, progress.get(job.id))
            else:
                detail = ready.message if ready else ""
            rows.append((record.key, _word(record), detail))
        return rows


def _word(record: ObjectRecord) -> str:
    if record.key.kind != "Experiment":
        return stage_word(record)
    return "Ready" if record.ready else "Stalled" if record.stalled else "Reconciling"


def _is_root_cause(record: ObjectRecord) -> bool:
    """Whether the object itself needs a human, not something before it."""
    stalled = record.status.condition("Stalled")
    return record.stalled and stalled is not None and stalled.reason != "UpstreamStalled"


def _because(word: str, detail: str) -> str:
    """Say why only where the word alone leaves one wondering."""
    unusual = word == "Waiting" and not detail.startswith("waits for")
    return f" ({detail})" if unusual or word in ("Stalled", "Retrying", "Suspended") else ""


def outcome_line(record: ObjectRecord, option: str = "") -> str:
    """Return how an object ended; ``option`` is what a follow-up command must repeat."""
    stalled = record.status.condition("Stalled")
    if record.stalled and stalled is not None:
        line = f"{record.key} is stalled: {stalled.reason}: {stalled.message}"
        kind, name = record.key.kind.lower(), record.key.name
        hint = f"\n  when that is repaired: loopscope{option} retry {kind} {name}, then run again"
        return line + (hint if record.wanted_digest else "")
    return f"{record.key} is ready{_answers(record.status.summary)}"


def _answers(summary: dict[str, Any]) -> str:
    words = [f"gate {summary['gate']}"] if summary.get("gate") else []
    if summary.get("verdict"):
        words.append(f"verdict {summary['verdict']}")
    if isinstance(summary.get("estimate"), float):
        words.append(
            f"{summary.get('contrast')} {summary['estimate']:+.2f} "
            f"[{summary['low']:+.2f}, {summary['high']:+.2f}], n = {summary['n']}"
        )
    return f": {', '.join(words)}" if words else ""


def _table(rows: list[tuple[Key, str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("OBJECT", "STATE", "DETAIL"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for key, word, detail in rows:
        table.add_row(str(key), word, detail)
    return table
