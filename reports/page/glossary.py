"""Words of the project where a reader first meets them, each with what it means."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from markupsafe import Markup, escape

from loopscope.specs.payloads.steering import Side

MEANINGS = {
    "anchor": "a coarse latent that is a candidate for the concept: the parent in feature "
    "splitting",
    "arm": "one way to steer: none, coarse, fine, multi, and their controls",
    "candidate": "a latent that passes the selection",
    "child": "a fine latent that belongs to an anchor: the split latent in feature splitting",
    "dictionary": "a sparse autoencoder (SAE), or a transcoder",
    "gate": "whether the fine dictionary resolves the concept further: GO, NO-GO or INCONCLUSIVE",
    "GO": "the gate: candidates have more children than coarse latents that resemble them, and one "
    "has as many as were asked for",
    "INCONCLUSIVE": "the gate: neither GO nor NO-GO; these prompts and dictionaries do not tell",
    "Inconclusive": "the verdict: the intervals allow more than one of the other answers",
    "latent": "one unit of a dictionary",
    "lexicon": "the words that count as the concept in generated text",
    "matched anchors": "coarse latents that are no candidates and resemble them; the gate's null",
    "minDifference": "the smallest difference in concept rate that would matter",
    "neutral prompts": "prompts of the same shape that are not about the concept",
    "NO-GO": "the gate: no candidate has as many children as were asked for, nor in most halves of "
    "the prompts",
    "NoPracticalDifference": "the verdict: both together are as good as the better one alone, to "
    "within minDifference",
    "NotTestable": "the verdict: this run could not have shown a difference",
    "opening": "the beginning of a text that the model continues",
    "Refuted": "the verdict: both together steer worse than one of the two alone",
    "resolution": "how finely a dictionary divides what it reads: the coarse or the fine one",
    "selectivity": "(mean on target \N{MINUS SIGN} mean on neutral) / their sum",
    "steering": "generation with a vector added at the hook",
    "Supported": "the verdict: both together steer better than coarse alone and than fine alone",
    "target prompts": "prompts that are about the concept",
}
"""As in ``docs/glossary.md``; a test compares the two."""
_FORMS = {
    "child": "children|child",
    "dictionary": "dictionaries|dictionary",
    "neutral prompts": "neutral prompts|neutral ones",
    "steering": "steering|steered|steers|steer",
    "target prompts": "target prompts|target",
}
_CASED = ("GO", "INCONCLUSIVE", "Inconclusive", "NO-GO", "Refuted", "Supported")
_TERMS = {
    form: (term, term in _CASED)
    for term in MEANINGS
    for form in _FORMS.get(term, f"{term}s|{term}").split("|")
}
_NAME = r"(?P<side>[CF])-(?P<latent>\d+)"
_WORDS = re.compile(
    rf"\b(?:{_NAME}|(?P<word>{'|'.join(map(re.escape, sorted(_TERMS, key=len, reverse=True)))}))\b",
    flags=re.IGNORECASE,
)


class Explained:
    """Texts with each word of the glossary explained where it first stands, and latents linked.

    ``places`` are the latents that have a place in the page.
    """

    def __init__(self, places: AbstractSet[tuple[Side, int]]) -> None:
        self._places = places
        self._said: set[str] = set()

    def __call__(self, text: str) -> Markup:
        """Return a text, escaped, with its words and names marked."""
        parts, done = [], 0
        for found in _WORDS.finditer(text):
            parts += [escape(text[done : found.start()]), self._marked(found)]
            done = found.end()
        return Markup("").join([*parts, escape(text[done:])])

    def _marked(self, found: re.Match[str]) -> Markup:
        shown, word = found[0], found["word"]
        if word is None:
            side: Side = "coarse" if found["side"].upper() == "C" else "fine"
            if (side, int(found["latent"])) not in self._places:
                return escape(shown)
            return Markup('<a href="#latent={}/{}">{}</a>').format(side, found["latent"], shown)
        term, cased = _term(word)
        if term is None or (cased and word != term) or term in self._said:
            return escape(shown)
        self._said.add(term)
        return Markup('<abbr tabindex="0" title="{}">{}</abbr>').format(MEANINGS[term], shown)


def _term(word: str) -> tuple[str | None, bool]:
    """Return what a word stands for, and whether its case matters."""
    return _TERMS.get(word) or _TERMS.get(word.lower()) or (None, False)
