"""Artifacts as the stages would publish them: small, valid, a pure function of what goes in."""

import functools
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import save

from loopscope.specs.actions import CODE_REVISIONS, Stage
from loopscope.specs.canonical import digest

Files = dict[str, bytes]
Upstream = Callable[[str, str, str], bytes]
"""``upstream(stage, digest, name)``: the bytes of a payload file of a published artifact."""

D_MODEL = 8
FINE_COSINES = {20: 0.9, 21: 0.6, 22: 0.4, 23: 0.2}
"""Cosines of the fine latents to the anchor: what ``minCosine`` cuts."""


FIRST_REVISIONS = dict(CODE_REVISIONS)


def run(
    stage: Stage, payload: dict[str, Any], upstream: Upstream, revision: int | None = None
) -> tuple[Files, dict[str, Any]]:
    """Return the payload files and metrics that a stage makes of a job's payload.

    Code of another revision than this checkout's (default: what is set now) makes other files.
    """
    revision = CODE_REVISIONS[stage] if revision is None else revision
    files, metrics = _RUN.get(stage, _plain)(payload, upstream)
    if revision != FIRST_REVISIONS[stage]:
        files["revision.json"] = _json(revision)
    return files, metrics


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _capture(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    seen = digest([payload["model"]["identity"], payload["hook"], payload["prompts"]])
    files = {
        "residual.safetensors": digest([seen, payload["positions"]]).encode(),
        "norms.json": _json({"median_norm": int(seen[:4], 16)}),
    }
    metrics = {"prompts": len(payload["prompts"]), "d_model": D_MODEL, "median_norm": 1.0}
    return files, metrics


def _decomposition(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    residual = upstream("capture", payload["capture"]["digest"], "residual.safetensors")
    seen = [
        _sha256(residual),
        payload["dictionary"]["identity"],
        payload["aggregation"],
        payload["splits"],
    ]
    files = {
        "tables/activations.safetensors": digest(seen).encode(),
        "features.parquet": _features(),
        "prompts.parquet": _prompts(tuple(payload["splits"])),
        "tables/seen.json": _json(seen),
    }
    return files, {"l0": 2.0, "fvu": 0.25, "d_sae": 32}


@functools.cache
def _features() -> bytes:
    columns = {
        "latent": [0, 1, 2, 3],
        "selectivity": [0.95, 0.9, 0.5, float("nan")],
        "firing_rate_target": [0.9, 0.8, 0.7, 0.0],
        "firing_rate_neutral": [0.05, 0.1, 0.3, 0.0],
        "q_value": [0.001, 0.01, 0.02, float("nan")],
    }
    return _parquet(columns)


@functools.cache
def _prompts(splits: tuple[str, ...]) -> bytes:
    return _parquet({"split": list(splits)})


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _geometry(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    identities = [payload[side]["identity"] for side in ("coarse", "fine")]
    return {"neighbours.json": _json(identities)}, {"pairs": 4}


def _mapping(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    candidates = payload["coarse"]["candidates"]
    children = [fine for fine, cosine in FINE_COSINES.items() if cosine >= payload["minCosine"]]
    passes = bool(candidates) and len(children) >= payload["gate"]["minSubfeatures"]
    sides = [
        _sha256(
            upstream("decomposition", payload[side]["digest"], "tables/activations.safetensors")
        )
        for side in ("coarse", "fine")
    ]
    sides.append(_sha256(upstream("geometry", payload["geometry"]["digest"], "neighbours.json")))
    files = {
        "pairs.json": _json([sides, payload["minCosine"], payload["gate"]]),
        "directions.json": _json({"anchor": candidates[:1], "children": children}),
    }
    if candidates:
        identity = payload["coarse"]["dictionary"]["identity"]
        number = int(digest([identity, candidates[0], children])[:6], 16)
        vector = np.asarray([number], dtype=np.float32)
        files["directions.safetensors"] = save({"coarse": vector})
    return files, {
        "verdict": "GO" if passes else "NO-GO",
        "anchors": len(candidates),
        "arms": ["coarse", "fine", "multi"] if candidates else [],
    }


def _evidence(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    seen = [
        _sha256(upstream("mapping", payload["mapping"]["digest"], "directions.json")),
        payload["model"]["identity"],
        payload["topPrompts"],
    ]
    metrics = {"latents": 2, "prompts": 4, "tokens": 12, "firings": 3}
    return {"tokens.json": _json(seen)}, metrics


def _steering(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    mapping, capture = payload["mapping"]["digest"], payload["capture"]["digest"]
    seen = [
        _sha256(upstream("mapping", mapping, "directions.json")),
        _sha256(upstream("mapping", mapping, "directions.safetensors")),
        _sha256(upstream("capture", capture, "norms.json")),
        payload["model"]["identity"],
    ]
    texts = digest([seen, payload["strengths"], payload["openings"]])
    files = {
        "scores.json": _json([seen, payload["strengths"], payload["openings"]]),
        "steering_samples.parquet": _parquet({"text": [texts]}),
        "arms.parquet": _parquet({"arm": ["none"], "strength": [0.0], "concept_rate": [0.25]}),
    }
    numbers = {"estimate": 0.25, "low": 0.1, "high": 0.4, "n": 20}
    return files, {"verdict": "Supported", "contrast": "multi - fine", **numbers}


def _trace(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    texts = upstream("steering", payload["steered"]["digest"], "steering_samples.parquet")
    seen = [_sha256(texts), payload["openings"], payload["work"]["model"]["identity"]]
    return {"steps.json": _json(seen)}, {"texts": 6, "tokens": 30, "followed": 3, "steps": 15}


def _ablation(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    seen = _sha256(upstream("mapping", payload["mapping"]["digest"], "directions.json"))
    found = {"prompts": 4, "tokens": 12}
    return {"losses.json": _json([seen, payload["seed"], payload["lexicon"]])}, found


def _splitting(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    seen = [
        _sha256(upstream("geometry", payload["geometry"]["digest"], "neighbours.json")),
        *(payload[side]["candidates"] for side in ("coarse", "fine")),
    ]
    told = {"coarse": {"lost": 1, "split": 1}, "fine": {"born": 1, "part": 2}}
    numbers = {"edges": 4, "by_chance": 0.5, "p": 0.01}
    return {"splitting.json": _json([seen, payload["seed"]])}, {**told, **numbers}


def _drift(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    arms = upstream("steering", payload["steered"]["digest"], "arms.parquet")
    return {"points.json": _json([_sha256(arms), payload["rules"]])}, {"openings": 3, "tokens": 9}


def _question(payload: dict[str, Any], upstream: Upstream) -> tuple[Files, dict[str, Any]]:
    seen = [payload["text"], payload.get("latents"), payload.get("steered", {}).get("asked")]
    steered = "steered" in payload
    if steered:
        seen.append(
            _sha256(upstream("steering", payload["steered"]["answered"]["digest"], "scores.json"))
        )
    return {"answer.json": _json(seen)}, {
        "tokens": 5, "firings": 0 if steered else 3, "answers": 2 if steered else 0,
    }  # fmt: skip


def _plain(payload: dict[str, Any], _: Upstream) -> tuple[Files, dict[str, Any]]:
    return {"made.json": _json(digest(payload))}, {}


_RUN: dict[str, Callable[[dict[str, Any], Upstream], tuple[Files, dict[str, Any]]]] = {
    "capture": _capture,
    "decomposition": _decomposition,
    "geometry": _geometry,
    "mapping": _mapping,
    "evidence": _evidence,
    "steering": _steering,
    "trace": _trace,
    "drift": _drift,
    "ablation": _ablation,
    "splitting": _splitting,
    "question": _question,
}
"""What others read of a stage, or count on; a stage that is not here is ``_plain``."""
