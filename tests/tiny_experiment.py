"""A whole experiment in a folder: tiny random model, two small dictionaries, prompts, spec."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.tiny_models import save_rope_model

HOOK = "blocks.2.hook_resid_post"
D_MODEL = 32
PLACES = {"target": ["france", "paris", "lyon"], "neutral": ["germany", "berlin", "japan"]}


def make_experiment(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Write everything under ``folder``; return the spec's path.

    ``changes`` replace fields of the spec.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        save_rope_model(folder / "model")
        _save_dictionaries(folder)
        _save_texts(folder)
    path = folder / "specs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(document(name, **changes), sort_keys=False))
    return path


def document(name: str, **changes: Any) -> dict[str, Any]:
    """Return the spec that ``make_experiment`` writes, as plain data."""
    spec: dict[str, Any] = {
        "model": {"name": "tiny", "source": {"folder": "../model"}},
        "hook": HOOK,
        "prompts": {
            "target": {"file": "../texts/target.txt"},
            "neutral": {"file": "../texts/neutral.txt"},
        },
        "dictionaries": {"coarse": {"path": "../coarse"}, "fine": {"path": "../fine"}},
        "selection": {
            "minSelectivity": 0.02,
            "minFiringRateTarget": 0.1,
            "maxFiringRateNeutral": 1.0,
            "maxQ": 1.0,
            "top": 3,
        },
        "mapping": {"minCosine": 0.3, "topK": 4},
        "gate": {"minSubfeatures": 1},
        "steering": {
            "strengths": [0.5, 1.0],
            "maxNewTokens": 6,
            "randomDraws": 3,
            "samplesPerPrompt": 1,
            "prompts": {"file": "../texts/openings.txt"},
            "neutralText": {"file": "../texts/neutral-text.txt"},
            "lexicon": {"texts": ["france", "paris", "lyon", "cheese"]},
        },
    }
    return {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {**spec, **changes},
    }


def _save_texts(folder: Path) -> None:
    texts = folder / "texts"
    texts.mkdir()
    for condition, places in PLACES.items():
        words = itertools.product(["food", "river", "music", "wine"], ["old", "small"], places)
        lines = [f"the {thing} in {size} {place} was" for thing, size, place in words]
        (texts / f"{condition}.txt").write_text("\n".join(lines) + "\n")
    (texts / "openings.txt").write_text("the people walked to\na child liked the\nwe saw old\n")
    (texts / "neutral-text.txt").write_text("the old house is near a hill and a garden\n")


def _save_dictionaries(folder: Path) -> None:
    generator = np.random.default_rng(7)
    coarse = generator.normal(size=(48, D_MODEL))
    near = coarse.repeat(2, axis=0) + 0.8 * generator.normal(size=(96, D_MODEL))
    for name, decoder in (("coarse", coarse), ("fine", near)):
        save_dictionary(folder / name, decoder)


def save_dictionary(
    folder: Path, decoder: np.ndarray, hook: str = HOOK, write_hook: str | None = None
) -> None:
    """Save a ReLU dictionary in SAELens' folder format; ``decoder`` is [latents, d_model].

    With ``write_hook`` a transcoder, which reads and writes the same directions.
    """
    from safetensors.numpy import save_file

    unit = (decoder / np.linalg.norm(decoder, axis=1, keepdims=True)).astype(np.float32)
    folder.mkdir(parents=True)
    weights = {
        "W_enc": np.ascontiguousarray(unit.T),
        "b_enc": np.zeros(len(unit), np.float32),
        "W_dec": unit,
        "b_dec": np.zeros(unit.shape[1], np.float32),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    written = {} if write_hook is None else {"hook_name_out": write_hook}
    cfg = {
        "architecture": "standard" if write_hook is None else "transcoder",
        "d_in": unit.shape[1],
        "d_sae": len(unit),
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": hook, **written},
    }
    if write_hook is not None:
        cfg |= {"d_out": unit.shape[1], "apply_b_dec_to_input": False}
        cfg["metadata"] |= {"sae_lens_version": "6.54.0"}
    (folder / "cfg.json").write_text(json.dumps(cfg))
