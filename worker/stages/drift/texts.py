"""The texts of a drift: an anchor in front, a filler, what ends it, and the opening."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from loopscope.numerics.steering.fixed_text import hashed_order
from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.payloads.drift import DriftPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.steering.arms import PLACEBO_PROMPT, SYSTEM_PROMPT
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun
from loopscope.worker.stages.tables import read_columns

Tokens = tuple[int, ...]
USUAL_ARMS = ("multi", "coarse", "fine")


@dataclass(frozen=True)
class DriftTexts:
    """Tokens without BOS but ``bos``; the three anchors are equally long.

    ``fillers`` hold as many tokens as the largest distance; a shorter one is its beginning, and
    ``separator`` stands for its last tokens. ``filler_of`` has the filler of each opening.
    """

    bos: int
    system_prompt: Tokens
    placebo: Tokens
    other_words: Tokens
    fillers: tuple[Tokens, ...]
    separator: Tokens
    openings: tuple[Tokens, ...]
    filler_of: tuple[int, ...]

    def filler(self, number: int, distance: int) -> Tokens:
        """Return a filler of ``distance`` tokens without what ends it."""
        return self.fillers[number][: max(0, distance - len(self.separator))]

    def ending(self, distance: int) -> Tokens:
        """Return the last tokens of a filler of ``distance`` tokens: the separator."""
        return self.separator[len(self.separator) - min(distance, len(self.separator)) :]


def drift_texts(run: SteeringRun, payload: DriftPayload) -> DriftTexts:
    """Return the tokens of all texts. Raises TerminalFailure ``PromptTooLong``."""
    rules, work = payload["rules"], run.payload
    bos, *first = run.openings[0]
    anchors = {
        arm: tuple(run.tokens_before(0, arm)[1 : -len(first)])
        for arm in (SYSTEM_PROMPT, PLACEBO_PROMPT)
    }
    alone = run.model.encode(work["systemPrompt"])[1:]
    separator = anchors[SYSTEM_PROMPT][_shared(alone, anchors[SYSTEM_PROMPT]) :]
    own = len(anchors[SYSTEM_PROMPT]) - len(separator)
    other = itertools.islice(itertools.cycle(run.model.encode(payload["otherWords"])[1:]), own)
    dealt, count = _dealt(payload)
    fillers = _fillers(run.model, payload["fillerText"], count, rules["distances"][-1])
    texts = DriftTexts(
        bos=bos,
        system_prompt=anchors[SYSTEM_PROMPT],
        placebo=anchors[PLACEBO_PROMPT],
        other_words=(*other, *separator),
        fillers=fillers,
        separator=separator,
        openings=tuple(tuple(opening[1:]) for opening in run.openings),
        filler_of=dealt,
    )
    _check_lengths(run, texts, rules["distances"][-1], rules["newTokens"])
    return texts


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _dealt(payload: DriftPayload) -> tuple[tuple[int, ...], int]:
    """Return the filler of each opening, and how many there are: no more than units.

    Openings that belong together have the same, so that what shares a filler is one group.
    """
    openings = payload["work"]["openings"]
    units = [opening.get("group", number) for number, opening in enumerate(openings)]
    places = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    count = min(payload["rules"]["fillers"], len(places))
    return tuple(places[unit] % count for unit in units), count


def _fillers(
    model: LoadedModel, texts: Sequence[str], count: int, tokens: int
) -> tuple[Tokens, ...]:
    """Return ``count`` fillers of as many tokens, each of texts of its own as far as they reach.

    The texts are dealt in the order of their hashes; a filler that needs more goes on with those of
    the next one.
    """
    order = hashed_order(texts)
    hands = [[texts[place] for place in order[number::count]] for number in range(count)]
    found = []
    for number in range(count):
        own = [text for hand in (*hands[number:], *hands[:number]) for text in hand]
        once = model.encode(" ".join(own))[1:]
        found.append(tuple(itertools.islice(itertools.cycle(once), tokens)))
    return tuple(found)


def _check_lengths(run: SteeringRun, texts: DriftTexts, farthest: int, new_tokens: int) -> None:
    limit = run.model.context_tokens_max
    longest = max(map(len, texts.openings))
    needed = 1 + 2 * len(texts.placebo) + farthest + longest + new_tokens
    if limit is not None and needed > limit:
        raise TerminalFailure(
            "PromptTooLong",
            f"the distance of {farthest} tokens with anchors, opening and new tokens makes "
            f"{needed}, above the model's {limit}; leave out the largest distances",
        )


def anchoring_cell(payload: DriftPayload, context: StageContext) -> Cell:
    """Return the arm and strength that anchor, with the norm that the steering had.

    Raises TerminalFailure ``NothingToSteer``.
    """
    rules = payload["rules"]
    arms = read_columns(context.artifact("steering", payload["steered"]["digest"]) / ARMS.name)
    cells = [
        Cell(str(arm), float(strength), float(norm))
        for arm, strength, norm in zip(arms["arm"], arms["strength"], arms["norm"], strict=True)
        if strength > 0
    ]
    there = {cell.arm for cell in cells}
    usual = next((arm for arm in USUAL_ARMS if arm in there), USUAL_ARMS[0])
    arm = rules.get("arm", usual)
    own = [cell for cell in cells if cell.arm == arm]
    strength = rules.get("strength", max((cell.strength for cell in own), default=0.0))
    found = next((cell for cell in own if cell.strength == strength), None)
    if found is None:
        known = ", ".join(f"{cell.arm} at {cell.strength:g}" for cell in cells) or "none"
        raise TerminalFailure(
            "NothingToSteer",
            f"the steering has no arm {arm} at strength {strength:g}; it has: {known}",
        )
    return found
