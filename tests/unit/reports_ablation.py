"""The ablation of a made-up experiment: the anchor is used, its child no more than others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopscope.specs.artifacts.ablation import ABLATED, LOSSES
from tests.unit.reports_payloads import document, table

PARTS = ("anchor", "children", "both")
LOSS = {"anchor": 0.5, "children": 0.1, "both": 0.6}
ANSWERS = {"anchor": "used", "children": "lost no more than matched", "both": "used"}
CONTROLS = ("alikeInText", "alikeOnPrompts")
DRAWS = 2


def write_ablation(out: Path) -> dict[str, Any]:
    """Write losses, latents and document; return the metrics."""
    sets = [(part, "", 0) for part in PARTS]
    sets += [(part, one, draw) for one in CONTROLS for draw in range(DRAWS) for part in PARTS]
    rows = [
        (f"target-{n:04d}", part, control, draw, 0.1 if control else LOSS[part], 0.01, 2.5, -3.0)
        for part, control, draw in sets
        for n in range(4)
    ]
    table(out, LOSSES, **_columns(LOSSES, rows))
    latents = [
        (part, control, draw, side, latent, 1)
        for part, control, draw in sets
        for side, latent in (("coarse", 1), ("fine", 0))
    ]
    table(out, ABLATED, **_columns(ABLATED, latents))
    answers = [
        {
            "part": part, "answer": ANSWERS[part], "loss": LOSS[part], "low": LOSS[part] - 0.1,
            "high": LOSS[part] + 0.1, "kl": 0.01, "removed": 2.5,
        }
        for part in PARTS
    ]  # fmt: skip
    contrasts = [
        {
            "part": part, "against": against, "estimate": 0.4, "low": 0.3, "high": 0.5, "p": 0.001,
            "p_holm": 0.009, "between_draws": None if against == "nothing" else 0.01,
        }
        for part in PARTS
        for against in ("nothing", *CONTROLS)
    ]  # fmt: skip
    document(
        out / "ablation.json",
        {
            "hook": "blocks.12.hook_resid_post", "anchor": 1, "children": [0], "prompts": 4,
            "held_out": True, "concept_tokens": [" Paris"], "draws": dict.fromkeys(CONTROLS, DRAWS),
            "answers": answers, "contrasts": contrasts,
        },
    )  # fmt: skip
    parts = {
        one["part"]: {
            "loss": one["loss"], "low": one["low"], "high": one["high"], "answer": one["answer"],
            "p": 0.009,
        }
        for one in answers
    }  # fmt: skip
    return {
        "prompts": 4, "held_out": True, "tokens": 24, "latents": 2, "concept_tokens": 1,
        "parts": parts,
    }  # fmt: skip


def _columns(file: Any, rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    names = [column.name for column in file.columns]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
