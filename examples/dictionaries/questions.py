"""Questions for a chat model: templates × words, in an order drawn from a seed.

Five in six ask about places and what they are known for, the rest about everyday things and small
tasks, so that a dictionary sees answers of many kinds.
"""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import yaml

SEED = 20261129
WORDS = Path(__file__).resolve().parent / "smollm2" / "questions.yaml"


def questions(count: int) -> list[str]:
    """The first `count` of all 3,207 questions in their drawn order; ValueError beyond them."""
    every = [
        template.format(word)
        for family in yaml.safe_load(WORDS.read_text(encoding="utf-8")).values()
        for template, word in product(family["templates"], family["words"])
    ]
    if count > len(every):
        raise ValueError(f"there are {len(every):,} questions, {count:,} were asked for")
    random.Random(SEED).shuffle(every)
    return every[:count]
