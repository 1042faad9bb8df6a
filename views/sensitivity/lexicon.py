"""Other word lists: the same texts scored by fewer words, by more, and without siblings.

A text is about the concept where any word is found in it. So one that holds a word of a shorter
list is not read again, and one that holds none but other words only for what these may hide: words
found are the longest ones, and do not overlap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.verdict.evidence import CONCEPT
from loopscope.reconcilers.steering import scored_openings
from loopscope.specs.lexicon import folded, inflected, lexicon_pattern, mentions
from loopscope.specs.spec_json import SteeringJson
from loopscope.views.scored_cells import scored_cells
from loopscope.views.sensitivity.look import Look, judged, not_run
from loopscope.views.sensitivity.stored_run import KEYS, StoredRun

WORDS_MAX = 200
"""Words that are taken out one at a time: those that decide most texts."""
PART = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Worded:
    """The texts of a run, each behind its opening, with the words of the lexicon that it holds."""

    run: StoredRun
    spec: SteeringJson
    samples: pandas.DataFrame
    texts: Sequence[tuple[str, str]]
    found: Sequence[frozenset[str]]

    @property
    def words(self) -> list[str]:
        """The words of the lexicon, as they are written."""
        return list(self.spec["lexicon"]["texts"])

    @cached_property
    def declared(self) -> NDArray[np.float64]:
        """1 for each text that holds a word of the lexicon, else 0."""
        return np.array([float(bool(one)) for one in self.found])

    def hits(self, words: Sequence[str]) -> NDArray[np.float64]:
        """Return 1 for each text that holds one of ``words``, else 0."""
        names, own = {_name(word) for word in words}, {_name(word) for word in self.words}
        longer = [word for word in words if _name(word) not in own]
        shorter = [word for word in words if _name(word) in own]
        hits = np.array([float(bool(one & names)) for one in self.found])
        for place in np.flatnonzero((self.declared > 0) & (hits == 0)).tolist():
            hidden = _overlapping(shorter, self.found[place])
            hits[place] = _read([self.texts[place]], hidden)[0]
        if longer:
            missed = np.flatnonzero(hits == 0)
            hits[missed] = _read([self.texts[place] for place in missed.tolist()], longer)
        return hits

    def look(self, setting: str, concept: NDArray[np.float64], note: str = "") -> Look:
        """Return the verdict with this concept score of each text."""
        table = self.samples[KEYS].assign(value=concept)
        cells = scored_cells(table, self.spec).outcomes["value"]
        return judged("lexicon", setting, self.run.of_concept(cells), note)


def lexicon_looks(
    run: StoredRun, scores: pandas.DataFrame, samples: pandas.DataFrame, spec: SteeringJson
) -> Iterator[Look]:
    """Yield the verdict by other word lists; nothing where a text does not hold what was scored.

    ``scores`` is ``steering_scores.parquet``, ``samples`` ``steering_samples.parquet``.
    """
    openings = {one["id"]: one["text"] for one in scored_openings(spec)}
    table = scores[[*KEYS, CONCEPT]].merge(samples[[*KEYS, "text"]], on=KEYS, validate="1:1")
    texts = [
        (openings[opening], text)
        for opening, text in zip(table["prompt_id"], table["text"], strict=True)
    ]
    pattern, scored = lexicon_pattern(spec["lexicon"]["texts"]), table[CONCEPT].to_numpy()
    found = [
        frozenset(one.word for one in mentions(pattern, text, before)) if hit else frozenset()
        for (before, text), hit in zip(texts, scored, strict=True)
    ]
    worded = Worded(run, spec, table, texts, found)
    if np.array_equal(worded.declared, scored):
        yield from _lists(worded)
        yield from _without_one(worded)


def _lists(worded: Worded) -> Iterator[Look]:
    words = worded.words
    plurals = [word for word in inflected(words) if word not in words]
    own_plurals = _plurals_of(words)
    lists = {
        "with English plurals": [*words, *plurals],
        "without plurals of its own words": [word for word in words if word not in own_plurals],
        "every other word": words[::2],
        "the other half of the words": words[1::2],
    }
    for setting, chosen in lists.items():
        if chosen and len(chosen) != len(words):
            note = f"{len(chosen):,} words instead of {len(words):,}"
            yield worded.look(setting, worded.hits(chosen), note)
    if "siblings" in worded.spec:
        siblings = _read(worded.texts, worded.spec["siblings"]["texts"])
        yield worded.look("and no word of siblings", worded.declared * (1 - siblings))


def _plurals_of(words: Sequence[str]) -> set[str]:
    return {plural for word in words for plural in inflected([word])[1:]}


def _without_one(worded: Worded) -> Iterator[Look]:
    """Yield the verdict without each word that alone decides some text, the most texts first.

    All words that decide no text are one look.
    """
    deciding = Counter(next(iter(one)) for one in worded.found if len(one) == 1)
    for name, texts in deciding.most_common(WORDS_MAX):
        own = [word for word in worded.words if _name(word) == name]
        rest = [word for word in worded.words if word not in own]
        note = f"it alone decides {texts:,} text{'s' if texts > 1 else ''}"
        yield worded.look(f"without {own[0] if own else name!r}", worded.hits(rest), note)
    if (more := len(deciding) - WORDS_MAX) > 0:
        note = f"only the {WORDS_MAX} words that decide most texts were taken out"
        yield not_run("lexicon", f"without any one of {more:,} more words", note)
    idle = [word for word in worded.words if _name(word) not in deciding]
    if idle:
        several = f"without any one of the {len(idle):,} other words"
        setting = several if len(idle) > 1 else f"without {idle[0]!r}"
        note = "no text rests on one of them alone"
        yield worded.look(setting, worded.declared, note)


@lru_cache(maxsize=4_096)
def _name(word: str) -> str:
    return " ".join(folded(word).casefold().split())


def _overlapping(words: Sequence[str], found: frozenset[str]) -> list[str]:
    """Return the words that may share a part with one that was found: letters, or a symbol."""
    taken = frozenset().union(*(_parts(one)[0] for one in found))
    parts = ((word, *_parts(_name(word))) for word in words)
    return [word for word, own, symbols in parts if symbols or own & taken]


@lru_cache(maxsize=4_096)
def _parts(name: str) -> tuple[frozenset[str], bool]:
    """Return the parts of letters and digits of a word, and whether it holds a symbol."""
    return frozenset(PART.findall(name)), bool(PART.sub("", name).strip())


def _read(texts: Sequence[tuple[str, str]], words: Sequence[str]) -> NDArray[np.float64]:
    if not words:
        return np.zeros(len(texts))
    pattern = lexicon_pattern(words)
    return np.array([float(bool(mentions(pattern, text, before))) for before, text in texts])
