"""A stage run by itself: a tiny model, artifacts in folders, shards, and a way to stop early."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import JobStopped
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.capture import stage as capture

HOOK = "blocks.1.hook_resid_post"
TARGET = ["the capital of france is paris", "people in lyon liked cheese and wine", "paris", "wine"]
NEUTRAL = ["the capital of japan is tokyo", "people in berlin bought beer", "rome", "a train"]
CONCEPT_LATENT = 3
"""A latent of both dictionaries that answers to the concept and is neither anchor nor child."""
OPENINGS = ["the child walked to", "people near the sea cooked", "the old house"]


class World:
    """A stage's surroundings on disk: artifacts by stage, shards, and a way to stop early."""

    def __init__(self, model, folder):
        self.model, self.folder, self.calls, self.stop_at = model, folder, [], None
        self.dictionaries: dict[str, SparseDictionary] = {}
        self.batch_divisor = 1
        self.metrics: dict[str, dict[str, object]] = {}
        """What each run returned, by its folder."""

    def context(self, shards: str) -> StageContext:
        return StageContext(
            device="cpu",
            model=lambda ref: self.model,
            dictionary=lambda ref: self.dictionaries[ref["identity"]],
            artifact=self.artifact,
            shards=Shards(ShardFolder(self.folder / "shards" / shards)),
            progress=self.progress,
            batch_divisor=self.batch_divisor,
        )

    def artifact(self, stage, digest):
        """The folder of a stage; of a digest, where there is one of that name."""
        own = self.folder / f"{stage}-{digest}"
        return own if own.exists() else self.folder / stage

    def progress(self, *report):
        self.calls.append(report)
        if self.stop_at is not None and len(self.calls) >= self.stop_at:
            raise JobStopped("shutdown")

    def run(self, stage, payload, out="out", shards="a"):
        folder = self.folder / out
        folder.mkdir(parents=True)
        metrics = stage.run(payload, self.context(shards), folder)
        json.dumps(metrics, allow_nan=False)
        self.metrics[out] = metrics
        return folder, metrics


def capture_payload(**changes):
    texts = [(t, "target") for t in TARGET] + [(t, "neutral") for t in NEUTRAL]
    prompts = [
        {"id": f"p{i}", "text": text, "condition": condition}
        for i, (text, condition) in enumerate(texts)
    ]
    return {
        "model": {}, "hook": HOOK, "positions": "last", "maxTokens": 32, "prompts": prompts,
        "calibrationText": NEUTRAL[:1],
    } | changes  # fmt: skip


def steering_payload(**changes):
    return {
        "model": {}, "hook": HOOK, "mapping": {"digest": "m"}, "capture": {"digest": "c"},
        "coarse": {"digest": "dc", "dictionary": {"identity": "coarse"}},
        "fine": {"digest": "df", "dictionary": {"identity": "fine"}},
        "arms": ["none", "coarse", "fine", "multi", "random"], "randomDraws": 2,
        "strengthUnit": "residualNorm", "strengths": [0.5, 2.0], "samplesPerPrompt": 2,
        "maxNewTokens": 5,
        "sampling": {"temperature": 0.9, "topK": 20, "topP": 1.0, "greedy": False, "seed": 0},
        "openings": [{"id": f"o{i}", "text": text} for i, text in enumerate(OPENINGS)],
        "neutralText": ["the quiet city sold old bread", "a garden in summer"],
        "lexicon": ["france", "paris", "wine", "cheese"],
        "siblings": [], "minDifference": 0.15, "maxArmCosine": 0.98,
    } | changes  # fmt: skip


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def table(path):
    return pyarrow.parquet.read_table(path).to_pydict()


def interrupted_and_resumed(world, stage, payload, stop_at):
    world.calls, world.stop_at = [], stop_at
    with pytest.raises(JobStopped):
        world.run(stage, payload, f"stopped-{stop_at}", "resumed")
    world.stop_at = None
    return contents(world.run(stage, payload, f"resumed-{stop_at}", "resumed")[0])


def add_steering_inputs(world: World, **captured) -> World:
    """Add the artifacts that steering reads: a capture, directions, dictionaries, features.

    Coarse decoder rows are unit vectors 0 to 7 of the residual stream, fine ones 0 to 15. Latents 0
    and 2 are anchors, fine latent 1 is the child of the first. Latent *i* fires on *i* prompts.
    """
    world.run(capture, capture_payload(**captured), "capture", "capture")
    mapping = world.folder / "mapping"
    mapping.mkdir()
    basis = torch.eye(world.model.d_model)
    multi = (basis[0] + basis[1]) / math.sqrt(2)
    save_file(
        {"coarse": basis[0].clone(), "fine": basis[1].clone(), "multi": multi},
        mapping / "directions.safetensors",
    )
    described = {
        "missing": {}, "anchor": 0, "anchors": [0, 2], "children": [1], "children_of_all": [1, 2],
    }  # fmt: skip
    (mapping / "directions.json").write_text(json.dumps(described))
    for digest, latents in (("dc", 8), ("df", 16)):
        decomposition = world.folder / f"decomposition-{digest}"
        decomposition.mkdir()
        answers = np.arange(latents) == CONCEPT_LATENT
        features = {
            "n_firing": np.arange(latents),
            "q_value": np.where(answers, 0.001, np.nan),
            "selectivity": np.where(answers, 0.9, 0.0),
        }
        _write(decomposition / "features.parquet", features)
        prompts = table(world.folder / "capture" / "prompts.parquet")
        prompts["split"] = ["discover"] * len(prompts["prompt_id"])
        _write(decomposition / "prompts.parquet", prompts)
    for name, latents in (("coarse", 8), ("fine", 16)):
        rows = basis[:latents].clone()
        world.dictionaries[name] = Standard(
            rows.T.contiguous(), torch.zeros(latents), rows, torch.zeros(len(basis))
        )
    return world
