"""Steering once more, in plain Hugging Face and NumPy: whole passes, no cache, one text at a time.

Imports nothing of Loopscope. Takes the norm of each arm as given and recomputes what follows.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tests.acceptance.independent import LAYER, ROUNDING, Resolution


@dataclass
class Steered:
    """A model with ``vector`` [d_model] added after block LAYER at every token but the first."""

    model: torch.nn.Module
    vector: np.ndarray

    @contextmanager
    def _hooked(self):
        def add(_module, _inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            moved = hidden.clone()
            moved[:, 1:] += torch.from_numpy(self.vector).to(hidden.dtype)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handle = self.model.model.layers[LAYER].register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Return the logits at each position, float64 [tokens, vocabulary]."""
        with torch.no_grad(), self._hooked():
            return self.model(torch.tensor([tokens])).logits[0].double().numpy()


def unit(vector: np.ndarray) -> np.ndarray:
    """Return the vector with length 1."""
    return vector / np.linalg.norm(vector)


def arm_vectors(
    coarse: Resolution, fine: Resolution, anchor: int, children: list[int]
) -> dict[str, np.ndarray]:
    """Return the unit vectors of coarse, fine and multi; rows of ``decoder`` are unit vectors."""
    whole, parts = coarse.decoder[anchor], unit(fine.decoder[children].sum(0))
    return {"coarse": whole, "fine": parts, "multi": unit(whole + parts)}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def measured_positions(text: str, tokens: list[int]) -> list[int]:
    """Return the eight positions but BOS whose SHA-256, with the text, is lowest."""
    hashes = {
        place: hashlib.sha256(f"{place}\n{text}".encode()).hexdigest()
        for place in range(1, len(tokens))
    }
    return sorted(sorted(hashes, key=hashes.__getitem__)[:8])


def next_token_kl(model, tokens: list[int], vector: np.ndarray, positions: list[int]) -> float:
    """Return the mean over ``positions`` of KL(clean, steered), nats."""
    clean = _log_softmax(Steered(model, 0 * vector).logits(tokens)[positions])
    moved = _log_softmax(Steered(model, vector).logits(tokens)[positions])
    return float((np.exp(clean) * (clean - moved)).sum(-1).mean())


def perplexity(model, opening: list[int], generated: list[int]) -> float:
    """Return exp of the mean negative log-likelihood of ``generated`` under the clean model."""
    silent = np.zeros(model.config.hidden_size)
    log_p = _log_softmax(Steered(model, silent).logits([*opening, *generated]))
    places = range(len(opening) - 1, len(opening) + len(generated) - 1)
    return float(np.exp(-np.mean([log_p[i, t] for i, t in zip(places, generated, strict=True)])))


def draws(seed: int, opening: str, sample: int, steps: int) -> np.ndarray:
    """Return the uniforms of one sample, from the published key of the counter."""
    text = f"str:token\x1fint:{seed}\x1fstr:{opening}\x1fint:{sample}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key)).random(steps)


@dataclass
class Drawn:
    """The token that a draw takes, and all that it may take where rounding decides."""

    token: int
    possibly: set[int]


def choices(
    model, opening: list[int], generated: list[int], vector: np.ndarray, uniforms, rule: dict
) -> list[Drawn]:
    """Return what is drawn in the place of each of ``generated``, after those before it."""
    logits = Steered(model, vector).logits([*opening, *generated[:-1]])[len(opening) - 1 :]
    return [choose(row, u, rule) for row, u in zip(logits, uniforms[: len(logits)], strict=True)]


def choose(logits: np.ndarray, uniform: float, rule: dict) -> Drawn:
    """Draw by inverse CDF among the ``topK`` likeliest of ``logits`` [vocabulary].

    A float32 logit may be off by ROUNDING times the largest one. That moves the boundary of two
    tokens at F by as much as F (1 - F) times what it moves a weight, so a draw this near to it may
    take both; and tokens whose logits differ by less may stand in either order.
    """
    slack = 2 * ROUNDING * np.abs(logits).max()
    likeliest = np.lexsort((np.arange(len(logits)), -logits))[: rule["topK"]]
    weights = np.exp((logits[likeliest] - logits.max()) / rule["temperature"])
    ends = np.cumsum(weights) / weights.sum()
    shift = ends * (1 - ends) * slack / rule["temperature"]
    lowest, highest = np.concatenate([[0.0], (ends - shift)[:-1]]), ends + shift
    taken = likeliest[min(np.searchsorted(ends, uniform, side="right"), len(ends) - 1)]
    reached = likeliest[(lowest <= uniform) & (uniform <= np.append(highest[:-1], 1.0))]
    level = np.abs(logits[:, None] - logits[reached]).min(1) <= slack
    return Drawn(int(taken), set(np.flatnonzero(level).tolist()))


def mentions(text: str, words: list[str]) -> bool:
    """Say whether one of ``words`` (or phrases) stands in ``text``, by comparing lists of words."""
    return any(f" {_spoken(word)} " in f" {_spoken(text)} " for word in words)


def _spoken(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def distinct_pairs(tokens: list[int]) -> float:
    """Return the share of distinct pairs of neighbours."""
    pairs = list(itertools.pairwise(tokens))
    return len(set(pairs)) / len(pairs)
