"""Outcomes of generated texts that the unsteered model reads again."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.model.batching import pad, plan_batches
from loopscope.numerics.model.capture import check_residual, rows_without_bos
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.steering.intervention import LatentReader
from loopscope.numerics.steering.outcomes import (
    LinearProbe,
    distinct_share,
    probe_auroc,
    probe_interval,
)
from loopscope.numerics.steering.reading import (
    Continuation,
    Reading,
    read_continuations,
    residuals_of,
    text_means,
)
from loopscope.specs.artifacts.verdict import Probe
from loopscope.specs.hooks import Hook
from loopscope.worker.stages.capture.stage import TOKENS_PER_BATCH_MAX
from loopscope.worker.stages.prompts import read_prompts
from loopscope.worker.stages.steering.cells import Row
from loopscope.worker.stages.steering.run import SteeringRun, tokens_of

Outcomes = dict[str, dict[Row, float]]
ROWS_PER_SHARD = 64
"""Texts that are read in one shard, at least those of an opening."""
PROBE_PROMPTS_MAX = 100
"""Prompts of each condition that the probe is fitted to, drawn by their text if there are more."""


class FittedProbe(Probe):
    """A probe with its weights [d_model] and its bias."""

    weight: list[float]
    bias: float


def read_outcomes(run: SteeringRun, generated: dict[Row, list[int]]) -> tuple[Outcomes, Probe]:
    """Return each outcome of each row (NaN where unknown), and what the probe is.

    ``log_perplexity`` (nats per token), ``probe`` (P(target)), ``target_latent`` (mean activation
    of the steered anchor), ``distinct_2``.
    """
    probe = _probe(run)
    found: list[dict[str, float | None]] = []
    rows: list[Row] = []
    at_once = max(1, ROWS_PER_SHARD * len(run.openings) // max(1, len(generated)))
    for number, start in enumerate(range(0, len(run.openings), at_once)):
        run.context.progress("ReadingTexts", start, len(run.openings), "openings")
        openings = range(start, start + at_once)
        part = sorted(
            (row for row in generated if row.opening in openings),
            key=lambda r: (r.opening, r.sample, r.cell),
        )
        compute = partial(_read_texts, run, probe, part, generated)
        found.extend(run.kept(f"reading-{number:05d}.json", compute))
        rows.extend(part)
    run.context.progress("ReadingTexts", len(run.openings), len(run.openings), "openings")
    names = list(found[0]) if found else []
    outcomes = {
        name: {row: _number(record[name]) for row, record in zip(rows, found, strict=True)}
        for name in names
    }
    outcomes["distinct_2"] = {row: distinct_share(generated[row]) for row in rows}
    return outcomes, {
        "hook": probe["hook"],
        "auroc": probe["auroc"],
        "auroc_low": probe["auroc_low"],
        "auroc_high": probe["auroc_high"],
        "prompts": probe["prompts"],
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _read_texts(
    run: SteeringRun,
    probe: FittedProbe,
    rows: list[Row],
    generated: dict[Row, list[int]],
) -> list[dict[str, float | None]]:
    """Return the outcomes of all rows of some openings; equal texts of one are read once."""
    distinct = sorted(
        {Continuation(row.opening, tuple(generated[row])) for row in rows if generated[row]},
        key=lambda text: (len(text.tokens), text.opening, text.tokens),
    )
    probe_place = run.model.place(probe["hook"])
    reading = read_continuations(
        run.model.causal,
        run.openings,
        distinct,
        [*{run.read_place: None, probe_place: None}],
        run.model.pad_token,
        run.context.device,
    )
    fitted = LinearProbe(np.array(probe["weight"]), probe["bias"])
    target = _target_activations(run, reading)
    means = text_means(reading.states[probe_place], reading.lengths) if distinct else None
    scores = fitted.score(means.cpu().numpy()) if means is not None else np.zeros(0)
    place = {text: number for number, text in enumerate(distinct)}
    records = []
    for row in rows:
        number = place.get(Continuation(row.opening, tuple(generated[row])))
        record: dict[str, float | None] = dict.fromkeys(
            ("log_perplexity", "probe", "target_latent")
        )
        if number is not None:
            record["log_perplexity"] = float(reading.nll[number])
            record["probe"] = float(scores[number])
            record["target_latent"] = None if target is None else float(target[number])
        records.append(record)
    return records


def _target_activations(run: SteeringRun, reading: Reading) -> NDArray[np.float64] | None:
    """Return the steered anchor's mean activation over each text, None without an anchor."""
    anchors = run.arms.targets["coarse"]
    if not anchors:
        return None
    dictionary = run.context.dictionary(run.payload["coarse"]["dictionary"])
    reader = LatentReader.of(dictionary, anchors[:1]).to(run.context.device)
    states = reading.states[run.read_place]
    tokens = reader.activations(states)[:, 0].double().cpu().numpy()
    starts = np.cumsum([0, *reading.lengths[:-1]])
    sums = np.add.reduceat(tokens, starts) if reading.lengths else np.zeros(0)
    return np.asarray(sums / np.array(reading.lengths), dtype=np.float64)


def _probe(run: SteeringRun) -> FittedProbe:
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
