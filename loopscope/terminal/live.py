"""The live display of ``run``: a table on a terminal, elsewhere lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loopscope.context import now as unix_now
from loopscope.specs.keys import Key
from loopscope.terminal.printable import printable
from loopscope.views.numbers import age
from loopscope.views.progress import Row, RunProgress, Whole
from loopscope.views.stages import DONE_WORDS

REPEAT_SECONDS = 25.0
"""Without a terminal, progress is printed at least this often."""
DRAWN_SHARE = 0.1
"""Reading and drawing thousands of objects takes at most this share of the time."""
BAR_CHARACTERS = 12
DETAIL_CHARACTERS_MIN = 16
BAR_STYLE, FAILED_STYLE = "blue", "red"
"""Red is only for what needs a human: an answer, NO-GO or Refuted, is not a failure."""
_SHOWN_FIRST = ("Running", "Stalled", "Retrying", "Queued", "Suspended", "Reconciling")


class LiveView:
    """A table that is redrawn on a terminal; elsewhere a line per change, and now and then."""

    def __init__(
        self,
        progress: RunProgress,
        console: Console | None = None,
        clock: Callable[[], float] = unix_now,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._console = console or Console(highlight=False, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown: dict[Key, str] = {}
        self._shown_at = clock()
        self._drawn_at, self._due_at = -math.inf, -math.inf
        self._in_trouble = False

    @staticmethod
    def beside_output(progress: RunProgress) -> LiveView:
        """Return a view on standard error: what the command prints can be piped."""
        return LiveView(progress, Console(stderr=True, highlight=False, markup=False))

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
        self._console.print(printable(text), soft_wrap=True)

    def show_trouble(self, trouble: str | None) -> None:
        """Print once what keeps the controller from its work, and once that it is over."""
        if (trouble is None) == self._in_trouble:
            self._in_trouble = trouble is not None
            words = f"cannot do everything now; trying again: {trouble}"
            self.note(words if trouble is not None else "the trouble is over")

    def keep_up(self) -> None:
        """Show the newest state, unless that was done a moment ago and takes long."""
        now = self._clock()
        if now >= self._due_at or now < self._drawn_at:  # a clock may be set back
            self.refresh()
            self._drawn_at = self._clock()
            self._due_at = self._drawn_at + (self._drawn_at - now) * (1 / DRAWN_SHARE - 1)

    def refresh(self) -> None:
        """Show the newest state."""
        now = self._clock()
        rows, whole = self._progress.read(now)
        if self._console.is_terminal:
            size = self._console.size
            table = progress_table(rows, whole, size.width, size.height)
            self._live.update(table, refresh=True)
            return
        for row in rows:
            if self._shown.get(row.key) != row.word:
                self._shown[row.key] = row.word
                self.note(f"{row.key}: {row.word}{_because(row)}")
        if now - self._shown_at >= REPEAT_SECONDS or now < self._shown_at:
            self._shown_at = now
            for line in progress_lines(rows, whole):
                self.note(line)


def progress_lines(rows: Sequence[Row], whole: Whole) -> list[str]:
    """Return a line for each job that runs, or what everything waits for, and one for the run."""
    running = [row for row in rows if row.is_stage and row.word == "Running"]
    lines = [
        f"{row.key}: {int(100 * (row.share or 0.0))} %, {_left_words(row)} ({row.detail})"
        for row in running
    ]
    if not running:
        waits = [r for r in rows if r.is_stage and r.word not in (*DONE_WORDS, "Stalled")]
        lines = [f"{row.key}: {row.word} ({row.detail})" for row in waits[:1]]
    return [*lines, f"run: {whole}"]


def progress_table(rows: Sequence[Row], whole: Whole, width: int, height: int) -> Group:
    """Return the table of a run, so that name, state, bar and time left fit into ``width``.

    Rows that do not fit into ``height`` are counted; what runs or needs a human is shown first.
    """
    shown = _fitting(rows, height - 6)  # head, run, two notes, cursor
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    fixed = 11 + BAR_CHARACTERS + 4 + 7 + 4  # state, bar, percent, left, and spaces
    longest = max((len(str(row.key)) for row in shown), default=6)
    name = min(longest, max(8, width - fixed - 2))
    detail = width - fixed - name - 3
    for title, size, justify in (
        ("OBJECT", name, "left"),
        ("STATE", 11, "left"),
        ("PROGRESS", BAR_CHARACTERS, "left"),
        ("", 4, "right"),
        ("LEFT", 7, "right"),
    ):
        table.add_column(title, width=size, no_wrap=True, justify=justify)  # type: ignore[arg-type]
    if detail >= DETAIL_CHARACTERS_MIN:
        table.add_column("DETAIL", width=detail, no_wrap=True, overflow="ellipsis")
    for row in shown:
        failed = row.word == "Stalled"
        word = Text(row.word, FAILED_STYLE if failed else "")
        cells = [Text(_shortened(str(row.key), name)), word, *_bar(row.share, failed=failed)]
        cells.append(_left_cell(row))
        if detail >= DETAIL_CHARACTERS_MIN:
            cells.append(Text(printable(row.detail)))
        table.add_row(*cells)
    parts: list[Table | Text] = [table]
    if len(shown) < len(rows):
        hidden = Counter(row.word for row in rows if row not in shown)
        words = ", ".join(f"{count} {word}" for word, count in hidden.items())
        parts.append(Text(f"… and {len(rows) - len(shown)} more: {words}"[:width]))
    running = next((row for row in shown if row.is_stage and row.word == "Running"), None)
    if running is not None and detail < DETAIL_CHARACTERS_MIN:
        parts.append(Text(printable(running.detail)[:width]))
    return Group(*parts, _whole_line(whole, width))


def _whole_line(whole: Whole, width: int) -> Table:
    line = Table.grid(padding=(0, 1))
    words = f"{whole.done} of {whole.stages} stages done, {whole.left}"[: width - 22]
    line.add_row("run", *_bar(whole.share), words)
    return line


def _bar(share: float | None, *, failed: bool = False) -> list[ProgressBar | str | Text]:
    """Return bar and percentage; rich's own bar is red while all goes well."""
    part = min(max(share or 0.0, 0.0), 1.0)
    style = FAILED_STYLE if failed else BAR_STYLE
    bar = ProgressBar(
        100, 100 * part, width=BAR_CHARACTERS, complete_style=style, finished_style=style
    )
    return [bar, f"{int(100 * part)}%"]


def _left_cell(row: Row) -> str:
    if row.word in (*DONE_WORDS, "Stalled") or row.left_seconds is None:
        return ""
    return age(row.left_seconds) if row.word == "Running" else f"~{age(row.left_seconds)}"


def _left_words(row: Row) -> str:
    known = row.left_seconds is not None
    return f"{age(row.left_seconds or 0.0)} left" if known else "time left not known yet"


def _shortened(text: str, width: int) -> str:
    """Return a text with its middle taken out: the kind stands first, the stage last."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _fitting(rows: Sequence[Row], count: int) -> list[Row]:
    if len(rows) <= max(1, count):
        return list(rows)
    order = {word: number for number, word in enumerate(_SHOWN_FIRST)}
    first = sorted(rows, key=lambda row: order.get(row.word, len(order)))[: max(1, count)]
    return [row for row in rows if row in first]


def _because(row: Row) -> str:
    """Return the reason, where the word alone does not explain itself."""
    unusual = row.word == "Waiting" and not row.detail.startswith("waits for")
    return f" ({row.detail})" if unusual or row.word in ("Stalled", "Retrying", "Suspended") else ""
