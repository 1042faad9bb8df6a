"""Checks of an experiment's prompts: whether they can distinguish a concept from chance."""

from __future__ import annotations

from loopscope.specs.lexicon import check_free_of_words
from loopscope.specs.spec_json import ExperimentJson

PROMPTS_MIN = 5
"""Fewest prompts of a condition: five against five can at best reach p = 2/252, and latents that
fire on fewer than five prompts are not tested."""
NEUTRAL_SHARE_MAX = 0.01
"""Largest share of neutral prompts that may hold a word of the concept: slips, not a theme."""


def check_prompts(spec: ExperimentJson) -> list[tuple[str, str]]:
    """Return the fields of an Experiment's prompts that no test can use, and why.

    ``selection.maxQ: 1`` asks for no test, so any number of prompts will do.
    """
    problems = []
    prompts = spec["prompts"]
    for name, texts in (("target", prompts["target"]), ("neutral", prompts["neutral"])):
        count = len(texts["texts"])
        if count < PROMPTS_MIN and spec["selection"]["maxQ"] < 1:
            problems.append(
                (
                    f"spec.prompts.{name}",
                    f"{count} prompts, expected at least {PROMPTS_MIN}: with fewer no latent can "
                    "be told from chance; add prompts, or set selection.maxQ to 1 to select "
                    "without a test",
                )
            )
    if "steering" in spec:
        words, neutral = spec["steering"]["lexicon"]["texts"], prompts["neutral"]["texts"]
        try:
            check_free_of_words(words, neutral, "neutral prompts", NEUTRAL_SHARE_MAX)
        except ValueError as error:
            problems.append(("spec.prompts.neutral", str(error)))
    return problems
