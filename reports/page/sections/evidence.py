"""Evidence as the page shows it: prompts token by token, and what decoder rows say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas

from loopscope.specs.artifacts.evidence import (
    FIRINGS,
    LENS,
    NEAREST,
    SHOWN_LATENTS,
    SHOWN_PROMPTS,
    TOKENS,
)
from loopscope.specs.payloads.steering import Side
from loopscope.specs.shown_latents import ShownLatent
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import signed_magnitude

LEVELS = 9
"""Steps of the colour, from the first activation above 0 to the latent's largest."""
TOKENS_SHOWN_MAX = 60
"""Of a longer text the page shows so many tokens, around the strongest one."""
ASKING = (
    "which token of a prompt it was is not stored: the spec has no evidence. Add the line "
    "`evidence: {}` to the experiment's spec and run it once more (`loopscope run FILE`): it "
    "runs some of the capture's prompts again, and nothing that is finished is made again"
)

Key = tuple[str, int]
"""Side and latent."""


@dataclass(frozen=True)
class Piece:
    """A part of a text at one level, 0 where the latent is silent; ``tip`` has its number."""

    text: str
    level: int = 0
    tip: str = ""


@dataclass(frozen=True)
class TokenText:
    """A prompt with the activation of each token; ``strongest`` is the token of the largest."""

    pieces: list[Piece]
    strongest: str
    largest: float


@dataclass(frozen=True)
class Pushed:
    """A token that a decoder row pushes, and how far."""

    token: str
    logit: float

    @property
    def number(self) -> str:
        """How far, in digits: a decoder row may push all tokens by little."""
        return signed_magnitude(self.logit)


@dataclass(frozen=True)
class Evidence:
    """What an evidence holds, by latent; ``problem`` is why there is none."""

    problem: str
    lens_problem: str = ""
    controls: list[ShownLatent] = field(default_factory=list)
    chosen: Mapping[Key, Mapping[str, list[str]]] = field(default_factory=dict)
    """Of each latent the ``top`` and the ``random`` prompts, by their names."""
    nearest: Mapping[Key, list[tuple[int, float]]] = field(default_factory=dict)
    up: Mapping[Key, list[Pushed]] = field(default_factory=dict)
    down: Mapping[Key, list[Pushed]] = field(default_factory=dict)
    _tokens: Mapping[str, list[str]] = field(default_factory=dict)
    _firings: Mapping[tuple[str, int, str], Mapping[int, float]] = field(default_factory=dict)

    _largest: Mapping[Key, float] = field(default_factory=dict)

    def text(self, side: Side, latent: int, prompt: str) -> TokenText | None:
        """Return a prompt with the activations of a latent, None for one that is not kept.

        The strongest colour is the largest activation of the latent on any token that is kept.
        """
        if prompt not in self._tokens or (side, latent) not in self.chosen:
            return None
        tokens, scale = self._tokens[prompt], self._largest.get((side, latent), 0.0)
        found = self._firings.get((side, latent, prompt), {})
        best = max(found, key=lambda place: found[place], default=len(tokens))
        pieces: list[Piece] = []
        for place in _window(len(tokens), best):
            activation, word = found.get(place, 0.0), tokens[place - 1]
            if activation > 0 and word:
                level = min(LEVELS, 1 + int(activation / scale * (LEVELS - 1)))
                pieces.append(Piece(word, level, f"{activation:.3g}"))
            elif pieces and not pieces[-1].level:
                pieces[-1] = Piece(pieces[-1].text + word)
            else:
                pieces.append(Piece(word))
        strongest = tokens[best - 1].strip() if found else ""
        return TokenText(_with_cuts(pieces, len(tokens), best), strongest, found.get(best, 0.0))


def evidence(view: ExperimentView) -> Evidence:
    """Return the evidence of an experiment, or why there is none."""
    stage = view.stage("evidence")
    if not stage.available:
        asked = "evidence" in view.stages
        return Evidence(stage.problem if asked else ASKING)
    chosen: dict[Key, dict[str, list[str]]] = defaultdict(lambda: {"top": [], "random": []})
    for side, latent, prompt, why in _rows(stage.table(SHOWN_PROMPTS), 4):
        chosen[side, latent][why].append(prompt)
    tokens: dict[str, list[str]] = defaultdict(list)
    for prompt, _, word in _rows(stage.table(TOKENS), 3):
        tokens[prompt].append(word)
    firings: dict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    largest: dict[Key, float] = defaultdict(float)
    for side, latent, prompt, place, activation in _rows(stage.table(FIRINGS), 5):
        firings[side, latent, prompt][place] = activation
        largest[side, latent] = max(largest[side, latent], activation)
    nearest: dict[Key, list[tuple[int, float]]] = defaultdict(list)
    for side, latent, other, cosine in _rows(stage.table(NEAREST), 4):
        nearest[side, latent].append((other, cosine))
    pushed: dict[str, dict[Key, list[Pushed]]] = {
        "up": defaultdict(list),
        "down": defaultdict(list),
    }
    lens_problem = str(stage.metrics.get("lens") or "")
    if not lens_problem:
        for side, latent, direction, _, token, logit in _rows(stage.table(LENS), 6):
            pushed[direction][side, latent].append(Pushed(token, logit))
    return Evidence(
        problem="",
        lens_problem=lens_problem,
        controls=[
            ShownLatent(side, latent, role, anchor)
            for side, latent, role, anchor in _rows(stage.table(SHOWN_LATENTS), 4)
            if role == "control"
        ],
        chosen=chosen,
        nearest=nearest,
        up=pushed["up"],
        down=pushed["down"],
        _tokens=tokens,
        _firings=firings,
        _largest=largest,
    )


def _rows(table: pandas.DataFrame, columns: int) -> Iterator[tuple[Any, ...]]:
    return zip(*(table.iloc[:, place].tolist() for place in range(columns)), strict=True)


def _window(count: int, best: int) -> range:
    """Return the places that are shown, from 1: all, or those around the strongest token."""
    if count <= TOKENS_SHOWN_MAX:
        return range(1, count + 1)
    start = int(np.clip(best - TOKENS_SHOWN_MAX // 2, 1, count - TOKENS_SHOWN_MAX + 1))
    return range(start, start + TOKENS_SHOWN_MAX)


def _with_cuts(pieces: Sequence[Piece], count: int, best: int) -> list[Piece]:
    shown = _window(count, best)
    before = [Piece("… ")] if shown.start > 1 else []
    after = [Piece(" …")] if shown.stop <= count else []
    return [*before, *pieces, *after]
