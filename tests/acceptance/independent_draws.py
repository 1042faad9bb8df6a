"""The gate's random draws once more, with draws of one's own: dictionaries built, halves taken.

NumPy and SciPy only; see ``independent_gate.py``. What is random on both sides agrees within the
error of the draws.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from tests.acceptance import independent
from tests.acceptance.independent_gate import Anchored


def control_counts(
    anchors: np.ndarray, fine: np.ndarray, min_cosine: float, draws: int, seed: int
) -> np.ndarray:
    """Return the largest count of an anchor in each of ``draws`` dictionaries, really built.

    Normal rows with mean and covariance of the fine decoder's unit rows, made unit. In hundreds of
    dimensions the norm of such a row hardly varies, so that its moments stay what they were.
    """
    generator = np.random.default_rng(seed)
    unit = fine / np.linalg.norm(fine, axis=1, keepdims=True).clip(1e-12)
    unit = unit[np.linalg.norm(fine, axis=1) > 0]
    root = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    axes = root[2].T * root[1] / np.sqrt(len(unit))
    wanted = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    found = []
    for _ in range(draws):
        rows = unit.mean(axis=0) + generator.normal(size=(len(fine), axes.shape[1])) @ axes.T
        cosines = rows @ wanted.T / np.linalg.norm(rows, axis=1, keepdims=True)
        found.append((cosines >= min_cosine).sum(axis=0).max())
    return np.array(found)


def outcomes_of_halves(
    activations: np.ndarray,
    is_target: np.ndarray,
    group: np.ndarray | None,
    anchored: Anchored,
    rules: dict[str, float],
    limits: dict[str, float],
    halves: int,
) -> Counter:
    """Select and rank again on halves of the prompts, whole groups; count what comes out.

    ``rules`` are the selection's, ``limits`` hold ``minSubfeatures``, ``nullAnchors`` and
    ``minPercentile``. A half without a candidate is counted as "none"; "near" is one whose
    percentile other draws of as many anchors may place on the other side of the limit.
    """
    generator = np.random.default_rng(2)
    found = Counter()
    for number in range(halves):
        kept = half(is_target, group, generator)
        chosen = candidates_of(activations[kept], is_target[kept], rules)
        if not chosen:
            found["none"] += 1
        elif anchored.children[chosen].max() < limits["minSubfeatures"]:
            found["fails"] += 1
        else:
            eligible = int(anchored.living.sum() - anchored.living[chosen].sum())
            wanted = min(int(limits["nullAnchors"]), max(100, eligible // 10), eligible)
            p = 1 - anchored.percentile(chosen, wanted, seed=number) / 100
            limit = 1 - limits["minPercentile"] / 100
            if abs(p - limit) <= 2 * np.sqrt(limit * (1 - limit) / wanted):
                found["near"] += 1
            else:
                found["stands out" if p < limit else "passes"] += 1
    return found


def half(is_target: np.ndarray, group: np.ndarray | None, generator) -> np.ndarray:
    """Return half of the groups of each make-up (so many target, so many neutral), rounded up."""
    group = np.arange(len(is_target)) if group is None else group
    made_up: dict[tuple[int, int], list[int]] = {}
    for number in np.unique(group):
        members = is_target[group == number]
        made_up.setdefault((int(members.sum()), int((~members).sum())), []).append(int(number))
    kept = [
        generator.choice(numbers, (len(numbers) + 1) // 2, replace=False)
        for numbers in made_up.values()
    ]
    return np.flatnonzero(np.isin(group, np.concatenate(kept)))


def candidates_of(activations: np.ndarray, is_target: np.ndarray, rules) -> list[int]:
    """Return the candidates of these prompts, best first."""
    firing = np.flatnonzero((activations > 0).sum(axis=0) >= 5)
    if not firing.size:
        return []
    described = independent.features(activations[:, firing], is_target)
    q = independent.rank_tests(activations[:, firing], is_target)["q_value"]
    choice = independent.candidates(described, q, rules)
    order = sorted(choice.surely, key=lambda place: (-choice.score[place], place))
    return [int(firing[place]) for place in order[: choice.top]]
