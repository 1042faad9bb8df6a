"""What must come out, worked out from the specs alone; nothing of ``reconcilers`` is used.

The fake stages say what bytes a stage makes of its payload; this file builds the payloads by
itself, walking from the captures down, and so knows the content of every artifact that a chain
of specs stands for.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from loopscope.specs.actions import Stage
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.splits import Splits, prompts_of
from tests import fake_stages

LAYERS = 4
LATENTS = {0: (0.95, 0.9, 0.05, 0.001), 1: (0.9, 0.8, 0.1, 0.01), 2: (0.5, 0.7, 0.3, 0.02)}
"""Selectivity, firing rate on target and on neutral, q: what ``fake_stages`` writes."""


@dataclass(frozen=True)
class Outcome:
    """How an object must end: ``ready`` with a content, ``answered`` without, or ``stalled``."""

    word: str
    content: str | None = None


@dataclass(frozen=True)
class _Made:
    files: dict[str, bytes]
    metrics: dict[str, Any]

    @property
    def content(self) -> str:
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        return digest(hashes)


STALLED = Outcome("stalled")
_made: dict[str, _Made] = {}


def with_children(specs: dict[Key, dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Return the specs and those of the objects that experiments own."""
    everything = dict(specs)
    for key, spec in specs.items():
        if key.kind == "Experiment":
            everything |= _children(key, spec)
    return everything


def _children(key: Key, spec: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    def named(stage: str) -> dict[str, str]:
        return {"name": f"{key.name}-{stage}"}

    def child(kind: str, stage: str) -> Key:
        return Key(kind, key.namespace, f"{key.name}-{stage}")

    splits = {"splits": spec["splits"]} if "splits" in spec else {}
    fields = ("model", "hook", "prompts", "positions", "maxTokens")
    capture = {**{field: spec[field] for field in fields}, **splits}
    found: dict[Key, dict[str, Any]] = {child("Capture", "capture"): capture}
    for side in ("coarse", "fine"):
        found[child("Decomposition", side)] = {
            "captureRef": named("capture"),
            "dictionary": spec["dictionaries"][side],
            "aggregation": spec["aggregation"],
            "selection": spec["selection"],
        }
    sides = {"coarseRef": named("coarse"), "fineRef": named("fine")}
    found[child("Mapping", "mapping")] = {**spec["mapping"], **sides, "gate": spec["gate"]}
    if "steering" in spec:
        found[child("Steering", "steering")] = {
            **spec["steering"],
            "captureRef": named("capture"),
            "mappingRef": named("mapping"),
            "gatePolicy": spec["gate"]["policy"],
            **splits,
        }
    return found


class Model:
    """The outcomes of one set of specs, with what names resolve to and the stages' revisions."""

    def __init__(
        self,
        specs: dict[Key, dict[str, Any]],
        identity: dict[str, str],
        revisions: dict[Stage, int],
    ) -> None:
        self.specs = with_children(specs)
        self._revisions = revisions
        self._identity = identity
        self._upstream: dict[str, _Made] = {}

    def outcomes(self) -> dict[Key, Outcome]:
        """Return how each object must end."""
        found = {key: self._outcome(key) for key in self.specs if key.kind != "Experiment"}
        for key in self.specs:
            if key.kind == "Experiment":
                words = {found[child].word for child in _children(key, self.specs[key])}
                found[key] = STALLED if "stalled" in words else Outcome("answered")
        return found

    def _outcome(self, key: Key) -> Outcome:
        made = self._make(key)
        if isinstance(made, Outcome):
            return made
        return Outcome("ready", made.content)

    def _make(self, key: Key) -> _Made | Outcome:
        spec = self.specs.get(key)
        if spec is None:
            return STALLED
        match key.kind:
            case "Capture":
                return self._capture(spec)
            case "Decomposition":
                return self._decomposition(spec)
            case "Mapping":
                return self._mapping(spec)
            case _:
                return self._steering(spec)

    def _capture(self, spec: dict[str, Any]) -> _Made | Outcome:
        if int(spec["hook"].split(".")[1]) >= LAYERS:
            return STALLED
        conditions = {name: spec["prompts"][name]["texts"] for name in ("target", "neutral")}
        prompts = [
            {"id": f"{condition}-{n:04d}", "text": text, "condition": condition}
            for condition, texts in conditions.items()
            for n, text in enumerate(texts)
        ]
        return self._run(
            "capture",
            {
                "model": {"identity": self._identity_of(spec["model"]["name"])},
                "hook": spec["hook"],
                "prompts": prompts,
                "positions": spec["positions"],
            },
        )

    def _decomposition(self, spec: dict[str, Any]) -> _Made | Outcome:
        capture_key = Key("Capture", "default", spec["captureRef"]["name"])
        capture = self._make(capture_key)
        if isinstance(capture, Outcome):
            return STALLED
        if spec["aggregation"] != "last" and self.specs[capture_key]["positions"] != "all":
            return STALLED
        return self._run(
            "decomposition",
            {
                "capture": {"digest": self._lend(capture)},
                "dictionary": {"identity": self._identity_of(spec["dictionary"]["path"])},
                "aggregation": spec["aggregation"],
                "splits": Splits.model_validate(
                    self.specs[capture_key].get("splits", {})
                ).of_prompts(prompts_of(self.specs[capture_key]["prompts"])),
            },
        )

    def _mapping(self, spec: dict[str, Any]) -> _Made | Outcome:
        keys = _sides(spec)
        coarse, fine = (self._make(key) for key in keys)
        if isinstance(coarse, Outcome) or isinstance(fine, Outcome):
            return STALLED
        specs = [self.specs[key] for key in keys]
        if specs[0]["aggregation"] != specs[1]["aggregation"]:
            return STALLED
        names = [Key("Capture", "default", s["captureRef"]["name"]) for s in specs]
        captures = [self._make(name) for name in names]
        if len({made.content for made in captures if isinstance(made, _Made)}) > 1:
            return STALLED
        if coarse.files["prompts.parquet"] != fine.files["prompts.parquet"]:
            return STALLED
        geometry = self._geometry(keys)
        payload = {
            "coarse": {
                "digest": self._lend(coarse),
                "dictionary": self._dictionary(keys[0]),
                "candidates": _candidates(specs[0]["selection"]),
            },
            "fine": {"digest": self._lend(fine)},
            "geometry": {"digest": self._lend(geometry)},
            "minCosine": spec["minCosine"],
            "gate": {name: value for name, value in spec["gate"].items() if name != "policy"},
        }
        return self._run("mapping", payload)

    def geometries(self) -> dict[Key, str]:
        """Return the content of the geometry that each mapping that can be made needs."""
        return {
            key: self._geometry(_sides(spec)).content
            for key, spec in self.specs.items()
            if key.kind == "Mapping" and isinstance(self._make(key), _Made)
        }

    def _geometry(self, sides: list[Key]) -> _Made:
        coarse, fine = (self._dictionary(key) for key in sides)
        return self._run("geometry", {"coarse": coarse, "fine": fine})

    def _dictionary(self, key: Key) -> dict[str, str]:
        return {"identity": self._identity_of(self.specs[key]["dictionary"]["path"])}

    def _steering(self, spec: dict[str, Any]) -> _Made | Outcome:
        capture_key = Key("Capture", "default", spec["captureRef"]["name"])
        capture = self._make(capture_key)
        mapping = self._make(Key("Mapping", "default", spec["mappingRef"]["name"]))
        if isinstance(capture, Outcome) or isinstance(mapping, Outcome):
            return STALLED
        if spec["gatePolicy"] == "enforce" and mapping.metrics["verdict"] != "GO":
            return Outcome("answered")
        if not mapping.metrics["arms"]:
            return Outcome("answered")
        texts = spec["prompts"]["texts"]
        alone = [(text, None) for text in texts]
        splits = Splits.model_validate(spec.get("splits", {})).of_openings(alone)
        openings = [
            {"id": f"opening-{n:04d}", "text": text}
            for n, (text, split) in enumerate(zip(texts, splits, strict=True))
            if split == "test"
        ]
        payload = {
            "mapping": {"digest": self._lend(mapping)},
            "capture": {"digest": self._lend(capture)},
            "model": {"identity": self._identity_of(self.specs[capture_key]["model"]["name"])},
            "strengths": spec["strengths"],
            "openings": openings,
            "minDifference": spec["minDifference"],
        }
        return self._run("steering", payload)

    def _identity_of(self, name: str) -> str:
        return _digest_of(self._identity.get(name, name))

    def _lend(self, made: _Made) -> str:
        """Hand an upstream's files to the next stage under its content."""
        self._upstream[made.content] = made
        return made.content

    def _run(self, stage: Stage, payload: dict[str, Any]) -> _Made:
        """Make what a stage makes of a payload; remembered, for payloads repeat all the time."""
        revision = self._revisions[stage]
        name = json.dumps([stage, revision, payload], sort_keys=True)
        if name not in _made:
            _made[name] = _Made(
                *fake_stages.run(
                    stage,
                    payload,
                    lambda _, lent, file: self._upstream[lent].files[file],
                    revision,
                )
            )
        return _made[name]


def _sides(mapping: dict[str, Any]) -> list[Key]:
    refs = ("coarseRef", "fineRef")
    return [Key("Decomposition", "default", mapping[ref]["name"]) for ref in refs]


@functools.cache
def _digest_of(name: str) -> str:
    return digest(name)


def _candidates(selection: dict[str, Any]) -> list[int]:
    passing = [
        (-selectivity * target, latent)
        for latent, (selectivity, target, neutral, q) in LATENTS.items()
        if selectivity >= selection["minSelectivity"]
        and target >= selection["minFiringRateTarget"]
        and neutral <= selection["maxFiringRateNeutral"]
        and q <= selection["maxQ"]
    ]
    return [latent for _, latent in sorted(passing)[: selection["top"]]]
