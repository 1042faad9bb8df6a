"""Write what a record of ``verdict_errors.py`` holds into the documentation.

Run with ``.venv/bin/python benchmarks/verdict_errors_page.py RECORD --commit COMMIT --date DATE
--machine TEXT``. docs/verdict-errors.md is written anew with the whole table, and in
docs/science.md what stands between the two marks: the summary.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import scipy.special
from verdict_errors import Case, Played, cases, read, table, wrong

DOCS = Path(__file__).parent.parent / "docs"
LIMITS = {"Supported": 0.03, "Refuted": 0.03, "NoPracticalDifference": 0.06}
"""What the upper bound of each word's error may be; nominal are 0.025, 0.025 and 0.05."""
COVERAGE = (0.93, 0.97)
MARKS = ("<!-- verdict errors: written by benchmarks/verdict_errors_page.py -->", "<!-- end -->")

PROSE = """# Verdict errors

How often each word of the verdict is said in worlds whose truth is known, and how often it is
wrong. Written by `benchmarks/verdict_errors_page.py`; {note}.

A world has scores of 0 or 1 for each text, of four arms (none 0.03, coarse 0.20, fine 0.45, multi
0.45 plus the *truth*), correlated by the openings' difficulty. *Clusters*: ten openings share a
part of their difficulty and of what each arm does to it, and the verdict knows which. *Budget
error*: the log KL of each arm is off by sd 0.1, for all openings of a world alike, and the verdict
is told what that gives a contrast. *Twins*: coarse is as good as fine (0.45), the worst case for
Refuted and for a difference at minDifference (0.15). With clusters, 20 openings are two groups and
50 are five: no sign-flip test can be sure of these.

A word is wrong when the truth denies it: Supported at 0 or below, Refuted at 0 or above,
NoPracticalDifference at ±0.15 or beyond; its share is then **bold**. Nominal are at most 2.5 %,
2.5 % and 5 %. Cells with 20,000 worlds had 5,000 at first, in which one of them had its upper bound
at the limit (Supported 2.60 %, bound 3.00 %): more worlds narrow a bound, and may move the share
either way.
"""

Found = list[tuple[Case, Played]]


def upper_bound(said: int, worlds: int) -> float:
    """Return the one-sided 95 % bound of a share (Clopper and Pearson 1934)."""
    return 1.0 if said == worlds else float(scipy.special.betaincinv(said + 1, worlds - said, 0.95))


def words_table(found: Found) -> Iterator[str]:
    """Yield one row a word: in how many cells it is wrong, how often it is said there at most."""
    yield "| word | cells where it is wrong | said in all of them | worst cell | its upper bound |"
    yield "|---|---|---|---|---|"
    for word in LIMITS:
        there = [(case, played) for case, played in found if word in wrong(case)]
        if not there:
            continue
        case, worst = max(there, key=lambda item: item[1].said[word] / item[1].worlds)
        share = worst.said[word] / worst.worlds
        everywhere = sum(p.said[word] for _, p in there) / sum(p.worlds for _, p in there)
        bound = upper_bound(worst.said[word], worst.worlds)
        worst_cell = f"{share:.2%}: {_named(case)}"
        yield f"| {word} | {len(there)} | {everywhere:.2%} | {worst_cell} | {bound:.2%} |"


def beyond(found: Found) -> list[str]:
    """Return a line for each cell and word whose upper bound is above its limit."""
    lines = []
    for case, played in found:
        for word in wrong(case):
            bound = upper_bound(played.said[word], played.worlds)
            if bound > LIMITS[word]:
                share = played.said[word] / played.worlds
                lines.append(
                    f"- {word} in {share:.2%} (bound {bound:.2%}, limit {LIMITS[word]:.0%}): "
                    f"{_named(case)}, {played.worlds:,} worlds"
                )
    return lines


def coverage(found: Found) -> Iterator[str]:
    """Yield how often the intervals hold the truth: in range, below and above it."""
    shares = [(played.covered / played.worlds, case) for case, played in found]
    low, high = COVERAGE
    below = [item for item in shares if item[0] < low]
    above = [item for item in shares if item[0] > high]
    inside = len(shares) - len(below) - len(above)
    yield (
        f"The 95 % interval of multi minus fine holds the truth in {low:.0%} to {high:.0%} of the "
        f"worlds in {inside} of {len(shares)} cells, more often in {len(above)}, less often in "
        f"{len(below)}."
    )
    by_size = {
        n: [share for share, case in shares if case.openings == n] for n in (20, 50, 126, 400)
    }
    ranges = [
        f"{n} openings {min(each):.1%} to {max(each):.1%}" for n, each in by_size.items() if each
    ]
    yield f"By size: {', '.join(ranges)}."
    for share, case in sorted(below, key=lambda item: item[0])[:5]:
        yield f"Least: {share:.1%}, {_named(case)}."


def _named(case: Case) -> str:
    extras = [
        name
        for name, flag in (
            ("clusters", case.clusters),
            ("budget error", case.budget_error),
            ("twins", case.twins),
        )
        if flag
    ]
    sampled = f"{case.samples} sample{'s' if case.samples > 1 else ''}"
    return ", ".join([f"truth {case.truth:+.2f}", f"{case.openings} openings", sampled, *extras])


def summary(found: Found, note: str) -> str:
    """Return what docs/science.md says of the table."""
    worlds = sum(played.worlds for _, played in found)
    failed = beyond(found)
    least = min(played.worlds for _, played in found)
    return "\n".join(
        [
            f"{len(found)} of {len(cases(False))} kinds of worlds, at least {least:,} of each, "
            f"{worlds:,} in all ({note}):",
            "",
            *words_table(found),
            "",
            f"Upper bounds are one-sided, 95 %. They may reach 3 % (NoPracticalDifference 6 %); "
            f"{len(failed) or 'none'} of them {'is' if len(failed) == 1 else 'are'} above.",
            *coverage(found),
            "All cells, and what a world is: [verdict errors](verdict-errors.md).",
        ]
    )


def page(record: Path, found: Found, note: str) -> str:
    """Return docs/verdict-errors.md."""
    failed = beyond(found) or ["None."]
    parts = [
        PROSE.format(note=note),
        "## In short\n",
        *words_table(found),
        "",
        *coverage(found),
        "",
        "Cells whose one-sided 95 % upper bound is above 3 % (NoPracticalDifference 6 %):\n",
        *failed,
        "",
        "## All cells\n",
        table(record),
        "",
    ]
    return "\n".join(parts)


def main() -> None:
    """Write both documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--date", required=True)
    parser.add_argument("--machine", required=True)
    options = parser.parse_args()
    found = sorted(read(options.record).items(), key=lambda item: str(item[0]))
    note = f"{options.date}, commit {options.commit}, {options.machine}"
    (DOCS / "verdict-errors.md").write_text(page(options.record, found, note), encoding="utf-8")
    science = DOCS / "science.md"
    first, last = MARKS
    between = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    block = f"{first}\n{summary(found, note)}\n{last}"
    text, replaced = between.subn(lambda _: block, science.read_text(encoding="utf-8"))
    if replaced != 1:
        raise SystemExit(f"{science} does not hold the two marks once")
    science.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
