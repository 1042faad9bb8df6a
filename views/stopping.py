"""The end of a steering that might stop early, in words and as rows."""

from __future__ import annotations

from collections.abc import Iterator

from loopscope.numerics.verdict.sequential import NEEDED
from loopscope.specs.artifacts.verdict import LookRecord, Verdict
from loopscope.views.numbers import MISSING, count

HEAD = ["openings", *(f"{word} (e of {needed:g})" for word, needed in NEEDED.items()), "verdict"]


def stopping_sentence(verdict: Verdict) -> str:
    """Return after how many openings it was decided and by which e-value; empty without looks."""
    found = verdict.get("stopping")
    if not found or not found["looks"]:
        return ""
    last = found["looks"][-1]
    n, declared, looks = last["openings"], found["declared"], len(found["looks"])
    after = f"{count(n)} of {count(declared)} openings and {looks} look{'s' if looks > 1 else ''}"
    word = last["verdict"]
    if word not in NEEDED:
        return f"No look said a word, after {after}: all openings were steered"
    e = dict(zip(NEEDED, _e_values(last), strict=True))[word]
    how = "Stopped early, after" if n < declared else "Decided at the last look, after"
    return (
        f"{how} {after}: the e-value of {word} had reached {e}, and {NEEDED[word]:g} were needed. "
        "The intervals of multi against coarse and fine hold at any look; other intervals, and the "
        "p of contrasts, are those of a fixed number of openings, not adjusted for the looks"
    )


def look_rows(verdict: Verdict) -> Iterator[list[str]]:
    """Yield one row for each look, under ``HEAD``."""
    for one in (verdict.get("stopping") or {"looks": []})["looks"]:
        yield [count(one["openings"]), *_e_values(one), one["verdict"]]


def _e_values(look: LookRecord) -> list[str]:
    e = look["e"]
    if e is None:
        return [MISSING] * len(NEEDED)
    return [f"{value:.3g}" for value in (e["supported"], e["refuted"], e["no_difference"])]
