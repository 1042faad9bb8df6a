"""Write the prompts and words of a concept that is none: halves by the order of sha256.

The neutral prompts of `france` and `weather` are put in the order of the sha256 of their UTF-8
text; the first half is called target, the second neutral. The everyday nouns below are halved in
the same way into lexicon and sibling words. A text's hash has nothing to do with what it says.

    python examples/coin-toss/toss.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

EXAMPLES = Path(__file__).parents[1]
SOURCES = ("france/prompts/neutral.txt", "weather/prompts/neutral.txt")
NOUNS = """
ankle apple arrow aunt balloon banana barrel basin beard bicycle biscuit blanket bracelet brush
bucket bullet butter button cable camel camera candle canoe carrot castle cattle cellar chain
cheek cherry chess chin cigarette cinema circus clay collar comb copper cotton cousin crab crown
cushion dentist diamond donkey drawer drum duck eagle elbow elephant engine envelope fabric
factory feather fence finger flute fork fox frog furniture garlic giant glove goat gold gown grape
guitar hammer handkerchief hat helmet herb honey horn horse hospital hotel insect iron jacket jar
jewel judge juice kettle knee knight ladder lamb lawyer leather lemon lion lorry magazine mask
meal medal microphone milk mirror monkey mud muscle mushroom nail neck necklace needle nephew nest
nurse olive orchestra oven owl parrot passport pearl pencil pepper piano pig pigeon pillow pipe
plum pocket poem potato prison pupil rabbit rat ribbon rice rifle ring rope rose salad salt
sandwich sausage saw scarf scissors shark sheep shirt shoe shoulder silk silver skirt soldier soup
spider spoon sugar suitcase sword tailor theatre throat thumb tiger tobacco tomato tongue tooth
towel trumpet turkey uncle uniform violin waist waiter wallet wasp wheel whistle wolf wool wrist
""".split()


def halves(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the first and the second half of the texts in the order of their sha256."""
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def files() -> dict[str, list[str]]:
    """Return the lines of each file by its name."""
    prompts = [line for source in SOURCES for line in lines(EXAMPLES / source)]
    target, neutral = halves(prompts)
    others = (EXAMPLES / "openings.txt", EXAMPLES / "france/prompts/openings.txt")
    texts = [*prompts, *(line for path in others for line in lines(path))]
    words, siblings = halves([noun for noun in NOUNS if noun not in " ".join(texts).lower()])
    return {
        "target.txt": target,
        "neutral.txt": neutral,
        "words.txt": words,
        "sibling-words.txt": siblings,
    }


def lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    for name, content in files().items():
        path = Path(__file__).parent / "prompts" / name
        path.write_text("\n".join(content) + "\n", encoding="utf-8")
