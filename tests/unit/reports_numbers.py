"""Made-up numbers of a report that agree with one another."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control, mannwhitneyu


def features(activations: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    on, off = activations[target], activations[~target]
    mean_on, mean_off = on.mean(axis=0), off.mean(axis=0)
    n_firing = (activations > 0).sum(axis=0)
    test = mannwhitneyu(on.astype(float), off.astype(float), method="asymptotic", axis=0)
    p = np.asarray(test.pvalue, dtype=float)
    tested = n_firing >= 5
    p[~tested] = np.nan
    q = np.full_like(p, np.nan)
    q[tested] = false_discovery_control(p[tested])
    return {
        "latent": np.arange(activations.shape[1]),
        "aggregation": np.full(activations.shape[1], "last"),
        "mean_activation_target": mean_on.astype(float),
        "mean_activation_neutral": mean_off.astype(float),
        "max_activation_target": on.max(axis=0).astype(float),
        "max_activation_neutral": off.max(axis=0).astype(float),
        "cohens_d": (mean_on - mean_off).astype(float),
        "firing_rate_target": (on > 0).mean(axis=0),
        "firing_rate_neutral": (off > 0).mean(axis=0),
        "selectivity": (mean_on - mean_off).astype(float) / (mean_on + mean_off + 1e-9),
        "auroc": test.statistic / (len(on) * len(off)),
        "p_value": p,
        "q_value": q,
        "n_firing": n_firing,
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def disturbance(arm: str, strength: float) -> float:
    costs = {"coarse": 1.0, "fine": 1.4, "multi": 1.2, "random-1": 0.7}
    return 0.9 * strength**2 * costs.get(arm, 0.5)


def reading(cosine: float, r: float) -> str:
    if np.isnan(r):
        return "unobserved"
    if r >= 0.2:
        return "match" if cosine >= 0.3 else "partial" if cosine >= 0.1 else "co-occurring"
    return "geometric-only" if cosine >= 0.3 else "unrelated"
