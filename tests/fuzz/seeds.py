"""Small well-formed inputs from which fuzzing starts."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from safetensors.numpy import save

from loopscope.specs.pipeline import ALONE, PIPELINE

HOOK = "blocks.1.hook_resid_post"
D_IN, D_SAE = 6, 20
MODEL = {"name": "tiny", "source": {"folder": "model"}}
PROMPTS = {"target": {"file": "target.txt"}, "neutral": {"texts": ["Rome is", "Oslo is"]}}
STEERING = {
    "strengths": [0.5, 1.0],
    "prompts": {"texts": ["We met in"]},
    "neutralText": {"texts": ["Water is wet."]},
    "lexicon": {"texts": ["France", "Paris"]},
    "sampling": {"temperature": 0.8, "topK": 5},
}
REFERENCES: dict[str, dict[str, Any]] = {
    node.kind: {field: {"name": name} for field, name in node.upstream.items()}
    for node in (*PIPELINE, *ALONE)
}
SPECS = REFERENCES | {
    "Experiment": {
        "model": MODEL,
        "hook": HOOK,
        "prompts": PROMPTS,
        "dictionaries": {"coarse": {"path": "coarse"}, "fine": {"path": "fine"}},
        "selection": {"minSelectivity": 0.5, "top": 3},
        "mapping": {"minCosine": 0.3},
        "gate": {"rule": "strict", "policy": "enforce"},
        "evidence": {"topPrompts": 2},
        "steering": STEERING,
    },
    "Study": {
        "experiment": {
            "model": MODEL,
            "hook": HOOK,
            "dictionaries": {"coarse": {"path": "coarse"}, "fine": {"path": "fine"}},
            "selection": {"maxQ": 1},
            "steering": {name: value for name, value in STEERING.items() if name != "lexicon"},
        },
        "families": {
            "places": {
                "templates": ["It is {word} that", "We saw {word}"],
                "concepts": {"france": {"words": ["Paris"]}, "spain": {"words": ["Madrid"]}},
            }
        },
    },
    "Capture": {"model": MODEL, "hook": HOOK, "prompts": PROMPTS, "positions": "all"},
    "Decomposition": {**REFERENCES["Decomposition"], "dictionary": {"path": "coarse"}},
    "Mapping": {**REFERENCES["Mapping"], "gate": {}},
    "Evidence": {**REFERENCES["Evidence"], "topPrompts": 2},
    "Steering": {**REFERENCES["Steering"], **STEERING},
    "Ablation": {**REFERENCES["Ablation"], "lexicon": {"texts": ["France", "Paris"]}, "draws": 2},
    "Damage": {**REFERENCES["Damage"], "sides": {"japan": {"texts": ["Tokyo"]}}, "maxLoss": 0.1},
    "Trace": {**REFERENCES["Trace"], "openings": 2},
    "Drift": {**REFERENCES["Drift"], "distances": [0, 8], "temperatures": [0.5]},
    "Question": {
        "captureRef": {"name": "c"},
        "mappingRef": {"name": "m"},
        "text": "Paris is",
        "latents": {"coarse": [1, 2]},
    },
}


def document(kind: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an object as a user would write it."""
    metadata = {"name": "x", "labels": {"team": "a"}, "annotations": {"note": "n"}}
    return {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": SPECS[kind] if spec is None else spec,
    }


def arrays(d_in: int = D_IN, d_sae: int = D_SAE, **more: Any) -> dict[str, Any]:
    """Return the tensors of a dictionary, none of them zero."""
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    named = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    return {**named, **more}


def safetensors(**more: Any) -> bytes:
    """Return a SAELens weights file."""
    return save(arrays(**more))


def npz(*, compressed: bool = False) -> bytes:
    """Return a Gemma Scope weights file."""
    stream = io.BytesIO()
    named = {**arrays(), "threshold": np.full(D_SAE, 0.1, np.float32)}
    write = np.savez_compressed if compressed else np.savez
    write(stream, **{name.lower(): array for name, array in named.items()})
    return stream.getvalue()


def config(**changes: Any) -> dict[str, Any]:
    """Return a SAELens config."""
    known = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "activation_fn_kwargs": {"k": 4},
        "metadata": {"hook_name": HOOK},
    }
    return {**known, **changes}


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf() -> bytes:
    """Return the header of a GGUF file."""
    words = b"".join(_text(f"word{index}") for index in range(20))
    pairs = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("gemma3"),
        _text("general.scale") + struct.pack("<If", 6, 1.0),
        _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 20) + words,
        _text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
        _text("gemma3.embedding_length") + struct.pack("<II", 4, 640),
        _text("gemma3.block_count") + struct.pack("<II", 4, 18),
        _text("general.file_type") + struct.pack("<II", 4, 15),
    ]
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


MODEL_FILES: dict[str, Any] = {
    "config.json": {
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_size": D_IN,
        "num_hidden_layers": 4,
        "text_config": {"hidden_size": D_IN, "num_hidden_layers": 4},
        "quantization_config": {"quant_method": "x"},
    },
    "tokenizer_config.json": {"bos_token": "<bos>", "tokenizer_class": "PreTrainedTokenizerFast"},
    "special_tokens_map.json": {"bos_token": "<bos>"},
    "tokenizer.json": {"version": "1.0"},
    "model.safetensors.index.json": {
        "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    },
}


def encoded(value: Any) -> bytes:
    """Return JSON as bytes."""
    return json.dumps(value).encode()
