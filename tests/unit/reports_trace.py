"""The trace of a made-up experiment: three tokens a text, and a path that an arm bends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from loopscope.specs.artifacts.trace import OPENING_TOKENS, SAMPLE_TOKENS, STEPS
from tests.unit.reports_payloads import Payloads, table, unit_vectors

FOLLOWED = 2
TOKENS = 3


def ends_of(text: str) -> list[int]:
    """Return where the first two words end, and the text."""
    words = [found.end() for found in re.finditer(r"\s*\S+", text)]
    return [*words[: TOKENS - 1], len(text)]


def write_trace(made: Payloads, texts: list[tuple[Any, ...]], out: Path) -> dict[str, Any]:
    """Write the trace of texts (opening, arm, strength, sample, text); return its metrics."""
    steers = [strength > 0 for _, _, strength, _, _ in texts]
    table(
        out,
        SAMPLE_TOKENS,
        **_named([row[:4] for row in texts]),
        ends=[ends_of(row[4]) for row in texts],
        steered=[TOKENS * one for one in steers],
    )
    openings = made.spec["steering"]["prompts"]["texts"]
    words = [
        (f"opening-{number:04d}", place, word, True)
        for number, text in enumerate(openings)
        for place, word in enumerate(re.findall(r"\s*\S+", text), start=1)
    ]
    table(out, OPENING_TOKENS, **_columns(("prompt_id", "place", "text", "steered"), words))
    weakest = min(made.spec["steering"]["strengths"])
    followed = [r for r in texts if r[2] in (0.0, weakest) and int(r[0][-4:]) < FOLLOWED]
    steps, rows, moved = [], [], []
    for name, arm, strength, sample, text in followed:
        ends = ends_of(text)
        last = re.findall(r"\s*\S+", openings[int(name[-4:])])[-1]
        pieces = [last, *(text[a:b] for a, b in zip([0, *ends], ends, strict=False))]
        for step, piece in enumerate(pieces):
            steps.append((name, arm, strength, sample, step, piece, strength > 0))
            rows.append(np.full(made.sizes.d_model, 0.1 * step) + 0.01 * len(arm))
            vectors = unit_vectors(made.sizes.d_model)
            moved.append(rows[-1] + strength * vectors.get(arm, vectors["coarse"]))
    names = ("prompt_id", "arm", "strength", "sample", "step", "token", "steered")
    table(out, STEPS, **_columns(names, steps))
    child = unit_vectors(made.sizes.d_model)["fine"][None]
    tensors = {"residual": rows, "steered": moved, "children": child}
    save_file(
        {name: np.asarray(one, dtype=np.float32) for name, one in tensors.items()},
        out / "trace.safetensors",
    )
    return {
        "texts": len(texts), "tokens": TOKENS * len(texts), "followed": len(followed),
        "steps": len(steps),
    }  # fmt: skip


def _named(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return _columns(("prompt_id", "arm", "strength", "sample"), rows)


def _columns(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
