"""The script of the explorable page, its data, and the policy that lets this one script run."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from loopscope.reports.page.sections.latents import Latents
from loopscope.specs.artifacts.gate import Directions
from loopscope.specs.artifacts.mapping import DIRECTIONS, PAIRS
from loopscope.specs.json_values import Json
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import is_missing
from loopscope.views.sensitivity import Range

SCRIPT = Path(__file__).parent / "script" / "explore.js"
PAIR_COLUMNS = (
    *("coarse", "fine", "cosine", "correlation", "correlation_within_target"),
    *("correlation_within_condition", "reading", "child"),
)
STATIC_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Exploring:
    """What the page of an experiment holds for its script; ``policy`` names the script's hash."""

    policy: str
    script: Markup
    data: Markup


def exploring(view: ExperimentView, latents: Latents, sensitivity: Sequence[Range]) -> Exploring:
    """Return script, data and policy. Equal views give equal bytes."""
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    return Exploring(policy, Markup(script), inline_json(_data(view, latents, sensitivity)))


def inline_json(value: Json) -> Markup:
    """Return JSON that can stand in a page: no ``<`` ends or begins an element there."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    escaped = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(escaped)


@functools.cache
def _script() -> str:
    """Return the script as the page holds it: what the browser hashes, with single newlines."""
    return SCRIPT.read_text(encoding="utf-8").replace("\r\n", "\n")


def _data(view: ExperimentView, latents: Latents, sensitivity: Sequence[Range]) -> Json:
    mapping, steering = view.stage("mapping"), view.stage("steering")
    pairs: list[Json] = []
    if mapping.available:
        table = mapping.table(PAIRS)
        columns = [table[name].tolist() for name in PAIR_COLUMNS]
        pairs = [
            [None if is_missing(value) else value for value in row]
            for row in zip(*columns, strict=True)
        ]
    return {
        "name": view.name,
        "latents": [[one.side, one.latent, one.role] for one in latents.shown],
        "pairColumns": list(PAIR_COLUMNS),
        "pairs": pairs,
        "both": [[coarse, fine, list(texts)] for coarse, fine, texts in latents.both],
        "arms": _arms(mapping.document(DIRECTIONS)) if mapping.available else {},
        "sensitivity": [
            {"low": one.low, "high": one.high, "verdict": one.verdict} for one in sensitivity
        ],
        "declared": {"minDifference": steering.spec.get("minDifference")},
    }


def _arms(directions: Directions) -> dict[str, Json]:
    """Return the latents of which each arm is made; an arm without latents is not there."""
    anchor = directions["anchor"]
    coarse: list[Json] = [] if anchor is None else [f"latent=coarse/{anchor}"]
    fine: list[Json] = [f"latent=fine/{child}" for child in directions["children"]]
    return {"coarse": coarse, "fine": fine, "multi": [*coarse, *fine]}
