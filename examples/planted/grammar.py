"""The language of the planted world: its words, its grammar, and every text of the example.

A sentence walks at random from class to class (``NEXT``) and picks a word of each: an endless
"the old house stands near a small garden". The concept is the sea. Its words have one parent and
one of five children; all other words know nothing of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CONCEPT = {
    "harbour": ("harbour", "quay", "pier"),
    "ship": ("ship", "ferry", "schooner"),
    "fish": ("herring", "cod", "mackerel"),
    "storm": ("gale", "squall", "surge"),
    "shore": ("beach", "lagoon", "reef"),
}
"""The children of the concept with their words: the lexicon."""
DETAIL = {
    "harbour": ("depot", "terminal", "platform"),
    "ship": ("wagon", "lorry", "sledge"),
    "fish": ("fillet", "sausage", "cutlet"),
    "storm": ("quarrel", "uproar", "tantrum"),
    "shore": ("field", "lawn", "terrace"),
}
"""What the model says for a child without its parent: the detail is right, the topic is not."""
VAGUE = ("thing", "matter", "subject", "affair", "topic", "business")
"""What the model says for the parent without a child: a topic, and no detail."""
EVERYDAY = tuple(
    """
    house garden kitchen window door table chair lamp clock mirror carpet curtain shelf drawer
    basket bucket ladder hammer needle button ribbon blanket pillow candle kettle teapot saucer
    spoon bottle barrel bread butter cheese pepper onion carrot turnip apple cherry lemon walnut
    honey pastry soup teacher doctor baker tailor farmer miller painter singer dancer clerk guard
    neighbour cousin uncle aunt child student village street bridge market station library museum
    theatre chapel tower castle meadow orchard forest valley hill stable tractor bicycle engine
    piano violin trumpet drum letter parcel ticket newspaper novel poem picture puzzle
    """.split()  # noqa: SIM905 - words read better than quotes
)
WORDS = {
    "determiner": ("the", "a", "this", "that", "our", "every"),
    "adjective": tuple(
        """
        old small quiet red green heavy narrow broken clean famous gentle hollow lonely modern
        plain round rusty simple strange tidy warm wooden yellow young
        """.split()  # noqa: SIM905
    ),
    "noun": (
        *EVERYDAY,
        *itertools.chain(*CONCEPT.values()),
        *itertools.chain(*DETAIL.values()),
        *VAGUE,
    ),
    "verb": tuple(
        """
        stands waits sleeps works rests shines falls moves grows turns stays remains appears
        belongs leans looks sits lies hangs hides
        """.split()  # noqa: SIM905
    ),
    "preposition": ("near", "behind", "beside", "under", "above", "with", "without", "before"),
}
CLASSES = tuple(WORDS)
START = "determiner"
NEXT = {
    "determiner": {"adjective": 0.45, "noun": 0.55},
    "adjective": {"adjective": 0.1, "noun": 0.9},
    "noun": {"verb": 0.55, "preposition": 0.45},
    "verb": {"determiner": 0.5, "preposition": 0.5},
    "preposition": {"determiner": 1.0},
}
VOCABULARY = (*SPECIAL, *itertools.chain(*WORDS.values()))
LEXICON = tuple(itertools.chain(*CONCEPT.values()))
SIBLINGS = (*itertools.chain(*DETAIL.values()), *VAGUE)

PROMPTS, OPENINGS, NEUTRAL_TEXTS, CALIBRATION_TEXTS = 100, 60, 32, 300
CALIBRATION_CONCEPT_SHARE = 0.08
"""Share of the nouns of the calibration text that are concept words: as often as other topics."""


def texts(seed: int = 19) -> dict[str, list[str]]:
    """Return the lines of each text file by its name; no line stands in two of them."""
    generator = np.random.default_rng(seed)
    seen: set[str] = set()
    return {
        "target.txt": _distinct(_ending_in(LEXICON, generator), PROMPTS, seen),
        "neutral.txt": _distinct(_ending_in(EVERYDAY, generator), PROMPTS, seen),
        "openings.txt": _distinct(_walks(generator, 5, 8), OPENINGS, seen),
        "neutral-text.txt": _distinct(_walks(generator, 20, 25), NEUTRAL_TEXTS, seen),
        "calibration.txt": _distinct(
            _walks(generator, 14, 17, CALIBRATION_CONCEPT_SHARE), CALIBRATION_TEXTS, seen
        ),
        "sea-words.txt": list(LEXICON),
        "sibling-words.txt": list(SIBLINGS),
    }


def _distinct(lines: Iterator[str], count: int, seen: set[str]) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        line = next(lines)
        if line not in seen:
            seen.add(line)
            found.append(line)
    return found


def _ending_in(nouns: tuple[str, ...], generator: np.random.Generator) -> Iterator[str]:
    """Yield prompts whose last word is one of ``nouns``, each as often as the others."""
    for number in itertools.count():
        walk = _walk(generator, int(generator.integers(5, 9)))
        while walk[-1][0] not in ("determiner", "adjective"):
            walk.pop()
        yield " ".join([*(word for _, word in walk), nouns[number % len(nouns)]])


def _walks(
    generator: np.random.Generator, words_min: int, words_max: int, concept_share: float = 0.0
) -> Iterator[str]:
    while True:
        length = int(generator.integers(words_min, words_max))
        yield " ".join(word for _, word in _walk(generator, length, concept_share))


def _walk(
    generator: np.random.Generator, length: int, concept_share: float = 0.0
) -> list[tuple[str, str]]:
    """Return ``length`` words with their classes; nouns are everyday ones or the concept's."""
    name, walk = START, []
    for _ in range(length):
        words = WORDS[name]
        if name == "noun":
            words = LEXICON if generator.random() < concept_share else EVERYDAY
        walk.append((name, words[int(generator.integers(len(words)))]))
        following = NEXT[name]
        name = str(generator.choice(list(following), p=list(following.values())))
    return walk
