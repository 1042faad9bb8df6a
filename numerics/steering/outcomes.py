"""Outcomes of generated text beside a word list: a linear probe, collateral change, variety."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from loopscope.numerics.statistics.auroc import auroc_interval
from loopscope.numerics.statistics.keyed import keyed_generator

Floats = NDArray[np.float64]

SHRINKAGE = 0.1
"""Share of the within-class covariance that is replaced by its mean variance."""
FOLDS = 5


@dataclass(frozen=True)
class LinearProbe:
    """Linear discriminant of two conditions: P(target | x) = 1 / (1 + exp(−(x·weight + bias)))."""

    weight: Floats
    bias: float

    @staticmethod
    def fit(target: Floats, neutral: Floats) -> LinearProbe:
        """Fit Fisher's linear discriminant to rows [prompts, d_model] with equal priors.

        The pooled covariance is shrunk towards a multiple of the identity (Friedman 1989), so it
        can be inverted with fewer prompts than dimensions. Raises ``ValueError`` for less than
        two prompts of a condition.
        """
        if min(len(target), len(neutral)) < 2:
            raise ValueError("a probe needs at least two prompts of each condition")
        means = target.mean(axis=0), neutral.mean(axis=0)
        centred = np.concatenate([target - means[0], neutral - means[1]])
        covariance = centred.T @ centred / (len(centred) - 2)
        level = float(np.trace(covariance)) / len(covariance) or 1.0
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
        weight = np.linalg.solve(shrunk, means[0] - means[1])
        return LinearProbe(weight, float(-weight @ (means[0] + means[1]) / 2))

    def score(self, rows: Floats) -> Floats:
        """Return P(target) of each row, in [0, 1]."""
        margin = np.clip(rows @ self.weight + self.bias, -50, 50)
        return np.asarray(1 / (1 + np.exp(-margin)), dtype=np.float64)


def probe_auroc(target: Floats, neutral: Floats, seed: int) -> float:
    """Return the AUROC of probes on prompts that they were not fitted to (5 folds).

    NaN with fewer than ten prompts of a condition.
    """
    if min(len(target), len(neutral)) < 2 * FOLDS:
        return float("nan")
    generator = keyed_generator("probe-folds", seed)
    folds = [np.arange(len(rows)) % FOLDS for rows in (target, neutral)]
    for fold in folds:
        generator.shuffle(fold)
    wins = []
    for number in range(FOLDS):
        fitted = LinearProbe.fit(target[folds[0] != number], neutral[folds[1] != number])
        high = fitted.score(target[folds[0] == number])[:, None]
        low = fitted.score(neutral[folds[1] == number])[None, :]
        wins.append(((high > low) + 0.5 * (high == low)).mean())
    return float(np.mean(wins))


def probe_interval(auroc: float, target: int, neutral: int) -> tuple[float, float]:
    """Return the 95 % interval of ``probe_auroc``: what probes of other prompts would reach.

    The folds' probes share most of what they were fitted to, so their mean strays more than one
    AUROC over all prompts does: by 1 / folds + 1 / (folds - 1) in place of 1 / folds of a fold's
    variance (Nadeau and Bengio 2003). The prompts count as so many fewer.
    """
    stray = 1 + FOLDS / (FOLDS - 1)
    return auroc_interval(auroc, target / stray, neutral / stray)


def changed_activation(
    steered: scipy.sparse.csr_array, unsteered: scipy.sparse.csr_array, targets: Sequence[int]
) -> tuple[float, float]:
    """Return Σ |a − b| and Σ b over the latents other than ``targets``, at the same tokens.

    a and b are the activations [tokens, latents] of the steered and the unsteered model on one
    fixed text: where nothing is steered the change is 0, without a floor. (Two *generated* texts of
    the same opening differ by more than their sum, steered or not.)
    """
    others = np.ones(unsteered.shape[1], dtype=np.float64)
    others[list(targets)] = 0.0
    changed = abs(steered - unsteered).sum(axis=0)
    return float(changed @ others), float(unsteered.sum(axis=0) @ others)


def distinct_share(tokens: Sequence[int], length: int = 2) -> float:
    """Return the share of distinct n-grams (distinct-n, Li et al. 2016); NaN without any."""
    grams = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def sibling_margin(texts: Floats, concept: Floats, siblings: Floats) -> Floats:
    """Return each text's cosine to a concept minus the mean of its cosines to the siblings.

    Rows of ``texts`` [texts, width], ``concept`` and ``siblings`` are unit vectors; the concept is
    the direction of the mean of its rows.
    """
    middle = concept.mean(axis=0)
    middle /= np.linalg.norm(middle)
    return np.asarray(texts @ middle - (texts @ siblings.T).mean(axis=1), dtype=np.float64)
