"""The linear probe that texts are scored with, fitted to discover prompts at its own hook."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.model.batching import pad, plan_batches
from loopscope.numerics.model.capture import check_residual, rows_without_bos
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.steering.outcomes import LinearProbe, probe_auroc, probe_interval
from loopscope.numerics.steering.reading import residuals_of
from loopscope.specs.artifacts.verdict import Probe
from loopscope.specs.hooks import Hook
from loopscope.worker.stages.capture.stage import TOKENS_PER_BATCH_MAX
from loopscope.worker.stages.prompts import read_prompts
from loopscope.worker.stages.steering.run import SteeringRun, tokens_of

PROBE_PROMPTS_MAX = 100
"""Prompts of each condition that the probe is fitted to, drawn by their text if there are more."""


class FittedProbe(Probe):
    """A probe with its weights [d_model] and its bias."""

    weight: list[float]
    bias: float


def described(probe: FittedProbe) -> Probe:
    """Return what the verdict says of a probe: everything but its numbers."""
    return {
        "hook": probe["hook"],
        "auroc": probe["auroc"],
        "auroc_low": probe["auroc_low"],
        "auroc_high": probe["auroc_high"],
        "prompts": probe["prompts"],
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def fitted_probe(run: SteeringRun) -> FittedProbe:
    """Fit the probe to discover prompts, at its own hook; kept as a shard."""
    hook = run.payload.get("probeHook") or _default_probe_hook(run)
    return run.kept("probe.json", partial(_fit_probe, run, hook))


def _default_probe_hook(run: SteeringRun) -> str:
    last = run.model.n_layers - 1
    return str(Hook(min(last, (run.place.block + 1 + last) // 2), "resid_post"))


def _fit_probe(run: SteeringRun, hook: str) -> FittedProbe:
    prompts = read_prompts(run.payload["coarse"], run.context)
    discover = prompts["split"] == "discover"
    chosen = {
        condition: _drawn(prompts["text"][discover & (prompts["condition"] == condition)].tolist())
        for condition in ("target", "neutral")
    }
    target, neutral = (_prompt_means(run, hook, texts) for texts in chosen.values())
    fitted = LinearProbe.fit(target, neutral)
    auroc = probe_auroc(target, neutral, run.payload["sampling"]["seed"])
    low, high = probe_interval(auroc, len(target), len(neutral))
    return {
        "hook": hook,
        "weight": fitted.weight.tolist(),
        "bias": fitted.bias,
        "auroc": _known(auroc),
        "auroc_low": _known(low),
        "auroc_high": _known(high),
        "prompts": [len(target), len(neutral)],
    }


def _drawn(texts: list[str]) -> list[str]:
    """Return at most ``PROBE_PROMPTS_MAX`` of the texts, in a random order that is their own."""
    ranked = sorted(texts, key=lambda text: float(keyed_generator("probe", text).random()))
    return ranked[:PROBE_PROMPTS_MAX]


def _prompt_means(run: SteeringRun, hook: str, texts: list[str]) -> NDArray[np.float64]:
    """Return the mean stream over each prompt's tokens without BOS, [prompts, width]."""
    place = run.model.place(hook)  # refuses a hook that the model does not have
    tokens = tokens_of(run.payload, run.model, texts)
    width = run.model.width(hook)
    means = np.zeros((len(texts), width))
    done = 0
    for batch in plan_batches([len(t) for t in tokens], TOKENS_PER_BATCH_MAX):
        run.context.progress("FittingProbe", done, len(texts), "prompts")
        padded = pad([tokens[i] for i in batch], run.model.pad_token, "right", run.model.device)
        residual = residuals_of(run.model.causal, place, padded)
        check_residual(residual, padded, width, hook)
        for i, row in zip(batch, rows_without_bos(residual, padded), strict=True):
            means[i] = row.double().mean(dim=0).cpu().numpy()
        done += len(batch)
    return means
