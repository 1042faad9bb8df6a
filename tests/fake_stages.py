"""Artifacts as the stages would publish them: small, valid, a pure function of the payload."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import save_file

from specs.canonical import digest
from state.folder import StateFolder
from state.records import ArtifactRecord

D_MODEL = 8
FINE_COSINES = {20: 0.9, 21: 0.6, 22: 0.4, 23: 0.2}
"""Cosines of the fine latents to the anchor: what ``minCosine`` cuts."""


def publish(
    state: StateFolder,
    stage: str,
    digest_: str,
    payload: dict[str, Any],
    now: float,
    token: int = 1,
) -> ArtifactRecord:
    """Write the artifact that a payload stands for and rename it into place."""
    staging = state.artifacts.staging_folder(digest_, token)
    metrics = _WRITE[stage](payload, staging)
    manifest = {"stage": stage, "digest": digest_, "metrics": metrics, "createdAt": now}
    record = state.artifacts.seal(staging, manifest)
    return state.artifacts.publish(staging, record)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True))


def _capture(payload: dict[str, Any], out: Path) -> dict[str, Any]:
    seen = digest([payload["model"]["identity"], payload["hook"], payload["prompts"]])
    (out / "residual.safetensors").write_text(digest([seen, payload["positions"]]))
    _write_json(out / "norms.json", {"median_norm": int(seen[:4], 16)})
    return {"prompts": len(payload["prompts"]), "d_model": D_MODEL, "median_norm": 1.0}


def _decomposition(payload: dict[str, Any], out: Path) -> dict[str, Any]:
    inputs = [payload["capture"]["contentDigest"], payload["dictionary"]["identity"]]
    seen = digest([*inputs, payload["aggregation"]])
    (out / "activations.safetensors").write_text(seen)
    columns = {
        "latent": [0, 1, 2, 3],
        "selectivity": [0.95, 0.9, 0.5, float("nan")],
        "firing_rate_target": [0.9, 0.8, 0.7, 0.0],
        "firing_rate_neutral": [0.05, 0.1, 0.3, 0.0],
        "q_value": [0.001, 0.01, 0.02, float("nan")],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), out / "features.parquet")
    return {"l0": 2.0, "fvu": 0.25, "d_sae": 32}


def _mapping(payload: dict[str, Any], out: Path) -> dict[str, Any]:
    candidates = payload["coarse"]["candidates"]
    children = [fine for fine, cosine in FINE_COSINES.items() if cosine >= payload["minCosine"]]
    passes = bool(candidates) and len(children) >= payload["gate"]["minSubfeatures"]
    inputs = [payload[side]["contentDigest"] for side in ("coarse", "fine")]
    _write_json(out / "pairs.json", [inputs, payload["minCosine"], payload["gate"]])
    _write_json(out / "directions.json", [candidates[:1], children])
    _write_json(out / "directions.json", {"anchor": candidates[:1], "children": children})
    if candidates:
        identity = payload["coarse"]["dictionary"]["identity"]
        number = int(digest([identity, candidates[0], children])[:6], 16)
        vector = np.asarray([number], dtype=np.float32)
        save_file({"coarse": vector}, out / "directions.safetensors")
    return {
        "verdict": "GO" if passes else "NO-GO",
        "anchors": len(candidates),
        "arms": ["coarse", "fine", "multi"] if candidates else [],
    }


def _steering(payload: dict[str, Any], out: Path) -> dict[str, Any]:
    _write_json(out / "scores.json", [payload["strengths"], payload["openings"]])
    numbers = {"estimate": 0.25, "low": 0.1, "high": 0.4, "n": 20}
    return {"verdict": "Supported", "contrast": "multi - fine", **numbers}


_WRITE = {
    "capture": _capture,
    "decomposition": _decomposition,
    "mapping": _mapping,
    "steering": _steering,
}
