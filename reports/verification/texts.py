"""The scores of texts: what their words and tokens make of them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas

from loopscope.numerics.steering.outcomes import distinct_share
from loopscope.reconcilers.steering import scored_openings
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.steering import DISTRIBUTION_SHIFT, SAMPLES, SCORES
from loopscope.specs.lexicon import lexicon_pattern, mentions, promoted_beginnings, word_values
from loopscope.specs.outcomes import DISTINCT_MIN
from loopscope.specs.stopping import steered_openings

KEYS = ("prompt_id", "arm", "strength", "sample")
ROWS = "texts: one row for each opening, arm, strength and sample"
WORDS = "texts: concept, siblings and other words, from the texts"
VARIETY = "texts: distinct pairs, from the tokens"
MODEL = "it needs the model"


def check_texts(bundle: OpenBundle, findings: Findings) -> None:
    """Score the texts again by their words and tokens."""
    samples, scores = bundle.table(SAMPLES), bundle.table(SCORES)
    if scores is None or samples is None:
        return
    with findings.part(ROWS, SAMPLES.name):
        for name in KEYS:
            findings.column(ROWS, name, samples[name].to_numpy(), scores[name].to_numpy())
        found = sorted(scores["prompt_id"].unique())
        findings.same(ROWS, "openings", found, sorted(_openings_of(bundle, len(found))))
    with findings.part(WORDS, SCORES.name):
        _check_words(bundle, samples, scores, findings)
    with findings.part(VARIETY, SCORES.name):
        _check_variety(samples, scores, findings)
    findings.leave_out("the texts themselves", f"generating them again: {MODEL}")
    findings.leave_out("perplexity, probe and target latent of texts", MODEL)
    findings.leave_out("which degenerate texts hold a special token", "it needs the tokenizer")


def _openings_of(bundle: OpenBundle, n: int) -> list[str]:
    """Return the openings that a spec has steered where ``n`` were: whole blocks of them."""
    spec = bundle.spec("steering")
    rule, seed = spec.get("stopEarly"), spec["sampling"]["seed"]
    steered = steered_openings(scored_openings(spec), rule, seed, n)
    return [opening["id"] for opening in steered]


def _check_words(
    bundle: OpenBundle, samples: pandas.DataFrame, scores: pandas.DataFrame, findings: Findings
) -> None:
    spec = bundle.spec("steering")
    openings = {one["id"]: one["text"] for one in scored_openings(spec)}
    before = [openings[one] for one in samples["prompt_id"]]
    texts = samples["text"].tolist()
    promoted = _promoted(bundle)
    cells = list(zip(samples["arm"], samples["strength"], strict=True))
    pattern = lexicon_pattern(spec["lexicon"]["texts"])
    values = [
        word_values(mentions(pattern, text, opening), promoted.get(cell, ()))
        for text, opening, cell in zip(texts, before, cells, strict=True)
    ]
    found = {name: np.array([one[name] for one in values]) for name in values[0]}
    if "siblings" in spec:
        siblings = lexicon_pattern(spec["siblings"]["texts"])
        own = [bool(mentions(siblings, t, o)) for t, o in zip(texts, before, strict=True)]
        found["sibling"] = np.array(own, dtype=np.float64)
        found["targetedness"] = found["concept"] - found["sibling"]
    for name, column in found.items():
        findings.column(WORDS, name, scores[name].to_numpy(), column)


def _promoted(bundle: OpenBundle) -> dict[tuple[str, float], tuple[str, ...]]:
    """Return the beginnings of words that each arm and strength promotes most."""
    shifts = bundle.table(DISTRIBUTION_SHIFT)
    if shifts is None:
        return {}
    rises: dict[tuple[str, float], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    change = shifts["probability_after"] - shifts["probability_before"]
    for arm, strength, text, rise in zip(
        shifts["arm"], shifts["strength"], shifts["text"], change, strict=True
    ):
        rises[arm, strength][text] += rise
    return {cell: promoted_beginnings(own) for cell, own in rises.items()}


def _check_variety(samples: pandas.DataFrame, scores: pandas.DataFrame, findings: Findings) -> None:
    distinct = np.array([distinct_share(tokens.tolist()) for tokens in samples["tokens"]])
    findings.column(VARIETY, "distinct_2", scores["distinct_2"].to_numpy(), distinct)
    empty = np.array([not len(tokens) for tokens in samples["tokens"]])
    intact = scores["intact"].to_numpy()
    degenerate = empty | (distinct < DISTINCT_MIN)
    findings.column(
        VARIETY, "intact, of degenerate texts", intact[degenerate], np.zeros(degenerate.sum())
    )
