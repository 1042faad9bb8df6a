"""Write the prompts and words of a concept that is none: halves by the order of sha256.

The neutral prompts of ``france`` and ``weather`` are put in the order of the sha256 of their UTF-8
text; the first half is called target, the second neutral. The everyday nouns of ``nouns.txt`` that
occur in no prompt and no opening are halved in the same way, into lexicon and sibling words. A
text's hash has nothing to do with what it says.

    python examples/coin-toss/toss.py
"""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = ("france/prompts/neutral.txt", "weather/prompts/neutral.txt")
OPENINGS = ("openings.txt", "france/prompts/openings.txt")


def halves(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the first and the second half of the texts in the order of their sha256."""
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def files() -> dict[str, list[str]]:
    """Return the lines of each file that this script writes, by its name."""
    prompts, openings = lines(*PROMPTS), lines(*OPENINGS)
    used = " ".join([*prompts, *openings]).lower()
    target, neutral = halves(prompts)
    words, siblings = halves([noun for noun in lines("coin-toss/nouns.txt") if noun not in used])
    return {
        "target.txt": target,
        "neutral.txt": neutral,
        "words.txt": words,
        "sibling-words.txt": siblings,
    }


def lines(*names: str) -> list[str]:
    """Return the lines of text files, named from the folder of the examples."""
    return [line for name in names for line in (HERE.parent / name).read_text("utf-8").splitlines()]


if __name__ == "__main__":
    for name, content in files().items():
        (HERE / "prompts" / name).write_text("\n".join(content) + "\n", encoding="utf-8")
