"""The splitting graph of a made-up experiment: one latent split, one was lost, one is born."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopscope.specs.artifacts.splitting import EDGES, LATENTS
from tests.unit.reports_payloads import document, table

COARSE = {"kept": 0, "split": 1, "absorbed": 0, "merged": 0, "lost": 1}
FINE = {"twin": 0, "part": 2, "merged": 0, "born": 1}
EDGE_ROWS = ((1, 0, 0.6, 0.5, True, False, 1.0), (1, 2, 0.5, 0.4, True, False, 0.6),
             (3, 2, 0.4, 0.3, False, False, 0.9))  # fmt: skip
CHANCE = [1, 0, 2, 1]


def write_splitting(out: Path) -> dict[str, Any]:
    """Write edges, latents and document; return the metrics."""
    nothing = float("nan")
    latents = [
        ("coarse", 1, True, "split", 2, nothing, 0.9), ("coarse", 2, True, "lost", 0, nothing, 0.4),
        ("fine", 0, True, "part", 1, nothing, 0.5), ("fine", 2, False, "part", 1, nothing, 0.5),
        ("fine", 4, True, "born", 0, nothing, 0.25),
    ]  # fmt: skip
    table(out, EDGES, **_columns(EDGES, list(EDGE_ROWS)))
    table(out, LATENTS, **_columns(LATENTS, latents))
    told = {
        "coarse": COARSE, "fine": FINE, "edges": 3, "direct": 2, "p": 0.2, "stability": 0.83,
        "unlisted": 0,
    }  # fmt: skip
    document(out / "splitting.json", {**told, "pairs": 9, "chance": CHANCE})
    return {**told, "by_chance": 1.0}


def _columns(file: Any, rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    names = [column.name for column in file.columns]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
