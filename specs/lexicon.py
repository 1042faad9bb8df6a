"""Word lists: how their words are found in a text, and what makes a list worthless."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'")
LETTER_OR_DIGIT = r"[^\W_]"
PROMOTED_TOKENS = 10
PROMOTED_LETTERS_MIN = 2
"""A promoted token with fewer letters begins too many words to stand for one."""


def lexicon_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return what finds any of the words as a whole word or phrase in a ``folded`` text.

    Case does not count, and any white space may stand between a phrase's words. Where a word
    begins or ends in a letter or digit none may stand beside it (``_`` may: ``_Paris_`` is
    emphasis); a symbol such as ``==`` is found wherever it stands. Longer words are tried first.
    Raises ValueError without a word.
    """
    phrases = {folded(word).strip() for word in words} - {""}
    if not phrases:
        raise ValueError("the lexicon holds no word")
    ordered = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    alike = [_one_of(list(group), *sides) for sides, group in groupby(ordered, _sides)]
    return re.compile("|".join(alike), re.IGNORECASE)


def inflected(words: Sequence[str]) -> list[str]:
    """Return the words with the regular English plural of their last one.

    ``baker``: ``bakers``; ``city``: ``cities``; ``box``: ``boxes``. What does not end in a letter,
    and what begins with a capital, has none: ``Frances`` is no plural of ``France``. A genitive
    (``baker's``) holds the word itself.
    """
    found: dict[str, None] = {}
    for word in words:
        found[word] = None
        if word[-1:].isalpha() and not word.split()[-1][:1].isupper():
            found[_plural(word)] = None
    return list(found)


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"


def _sides(phrase: str) -> tuple[bool, bool]:
    """Return whether a phrase begins, and whether it ends, in a letter or digit."""
    first, last = (re.match(LETTER_OR_DIGIT, letter) for letter in (phrase[0], phrase[-1]))
    return first is not None, last is not None


def _one_of(phrases: Sequence[str], begins: bool, ends: bool) -> str:
    """Return what finds the first that fits of phrases with equal sides."""
    before = rf"(?<!{LETTER_OR_DIGIT})" if begins else ""
    after = rf"(?!{LETTER_OR_DIGIT})" if ends else ""
    # Most places are ruled out by one look at their letter, without trying each phrase.
    firsts = "".join(sorted({re.escape(phrase[0]) for phrase in phrases}))
    either = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
    return f"{before}(?=[{firsts}])(?:{either}){after}"


@dataclass(frozen=True)
class Mention:
    """A word of a lexicon in a text: folded, and where it stands in the text as it is."""

    word: str
    start: int
    end: int


def folded(text: str) -> str:
    """Return the text without accents, with plain dashes and apostrophes.

    So that ``Nîmes`` and ``Nimes``, ``Saint-Tropez`` with any hyphen, and either apostrophe count
    as the same word.
    """
    return _folded(text)[0]


def mentions(pattern: re.Pattern[str], text: str, opening: str = "") -> list[Mention]:
    """Return the words of a lexicon in generated ``text``, in order, repeated or not.

    The opening never counts: a text that goes on with its last word begins with a fragment of it.
    """
    plain, places = _folded(text)
    begins = 0
    if re.search(rf"{LETTER_OR_DIGIT}\Z", folded(opening)):
        fragment = re.match(rf"{LETTER_OR_DIGIT}+", plain)
        begins = fragment.end() if fragment else 0
    return [
        Mention(
            " ".join(match.group().casefold().split()), places[match.start()], places[match.end()]
        )
        for match in pattern.finditer(plain, begins)
    ]


def word_values(found: Sequence[Mention], promoted: tuple[str, ...]) -> dict[str, float]:
    """Return what a text's words of the lexicon make of it.

    ``concept``: 1 if there is one. ``different_words``: how many different ones.
    ``concept_unpromoted``: 1 if there is one that begins with none of ``promoted``.
    """
    return {
        "concept": float(bool(found)),
        "different_words": float(len({mention.word for mention in found})),
        "concept_unpromoted": float(any(not m.word.startswith(promoted) for m in found)),
    }


def promoted_beginnings(rises: Mapping[str, float]) -> tuple[str, ...]:
    """Return the beginnings of words that an arm promotes most, folded.

    ``rises`` are by how much it raises the probability of each token right after the openings,
    summed over these: the ten that it raises most, without tokens of less than two letters.
    """
    most = sorted((-rise, text) for text, rise in rises.items() if rise > 0)[:PROMOTED_TOKENS]
    words = {folded(text).strip().casefold() for _, text in most}
    return tuple(sorted(word for word in words if len(word) >= PROMOTED_LETTERS_MIN))


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """Return the folded text, and where in ``text`` each of its letters and its end stand."""
    if text.isascii():  # most texts, and nothing in them is folded
        return text, range(len(text) + 1)
    letters = [
        (letter.translate(DASHES | APOSTROPHES), place)
        for place, character in enumerate(text)
        for letter in unicodedata.normalize("NFKD", character)
        if not unicodedata.combining(letter)
    ]
    plain = "".join(letter for letter, _ in letters)
    return plain, [*(place for _, place in letters), len(text)]


def check_free_of_words(
    words: Sequence[str], texts: Sequence[str], kind: str, share_max: float = 0.0
) -> None:
    """Raise ValueError where more than ``share_max`` of the texts hold one of the words."""
    pattern = lexicon_pattern(words)
    found = [(match.group(), text) for text in texts if (match := pattern.search(folded(text)))]
    if len(found) > share_max * len(texts):
        word, text = found[0]
        raise ValueError(
            f"{len(found)} of {len(texts)} {kind} hold a word of the lexicon, for example "
            f"{word!r} in {text[:60]!r}; take out the text or the word"
        )


def check_apart(lexicon: Sequence[str], siblings: Sequence[str]) -> None:
    """Raise ValueError where one mention would count for the concept and for its siblings."""
    for words, others in ((lexicon, siblings), (siblings, lexicon)):
        pattern = lexicon_pattern(words)
        both = [other for other in others if pattern.search(folded(other))]
        if both:
            raise ValueError(
                f"{len(both)} words count as lexicon and as siblings, for example {both[0]!r}; "
                "keep each in one list"
            )
