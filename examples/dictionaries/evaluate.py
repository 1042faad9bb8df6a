"""Measure the shipped dictionaries with NumPy and plain Hugging Face code, and write training.json.

SAELens is not used here: the shipped weights must mean what the four-line formula says.
Formulas: L0 = mean over tokens of count(a > 0); FVU = sum |x - x_hat|^2 / sum |x - mean x|^2 with
sums before the ratio in float64; CE recovered = (CE_zero - CE_sae) / (CE_zero - CE_clean).
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import answers
import capture
import corpus
import numpy as np
import questions
import torch
from capture import Rows
from corpus import Sequence
from numpy.typing import NDArray
from safetensors.numpy import load_file
from subjects import Subject

LIBRARIES = ("torch", "sae-lens", "transformers", "gguf")
MACHINE = "shared 2-core x86-64 virtual machine, no GPU"
CALIBRATION = Path(__file__).resolve().parents[2] / "specs" / "packaged" / "calibration.txt"
CE_LINES = 30  # calibration lines on which the cross entropy is measured
CE_CHATS = 30  # held-out chats, likewise
DEAD_ROWS = 100_000  # training tokens on which a latent must fire once to count as alive


def calibration_sequences(tokenizer: Any, first_token: str) -> list[Sequence]:
    """The packaged calibration text, a line after the other."""
    lines = CALIBRATION.read_text(encoding="utf-8").splitlines()
    return [one for line in lines for one in corpus.sequences(line, tokenizer, first_token)]


def chunks(rows: Rows, size: int = 4096) -> Iterator[Rows]:
    """`rows` in blocks of at most `size` tokens."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def fvu(rows: Rows, outputs: Rows) -> float:
    """Fraction of variance unexplained of `outputs` for `rows`, both [tokens, d_model]."""
    x, y = rows.astype(np.float64), outputs.astype(np.float64)
    return float(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


@dataclass(frozen=True)
class Dictionary:
    """A shipped TopK dictionary in float32: the formula that every reader may rely on."""

    w_enc: Rows  # [d_model, d_sae]
    b_enc: Rows  # [d_sae], raw residual units
    w_dec: Rows  # [d_sae, d_model], unit rows
    b_dec: Rows  # [d_model], raw residual units
    k: int
    centred: bool  # apply_b_dec_to_input

    @classmethod
    def load(cls, folder: Path) -> Dictionary:
        """Read a SAELens TopK folder."""
        config = json.loads((folder / "cfg.json").read_text())
        if config["normalize_activations"] != "none" or config["rescale_acts_by_decoder_norm"]:
            raise SystemExit(f"{folder.name}: hidden normalisation in cfg.json")
        weights = load_file(folder / "sae_weights.safetensors")
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        w_enc, b_enc, w_dec, b_dec = (weights[name].astype(np.float32) for name in names)
        return cls(w_enc, b_enc, w_dec, b_dec, config["k"], config["apply_b_dec_to_input"])

    def encode(self, rows: Rows) -> Rows:
        """Activations [tokens, d_sae] of raw residuals [tokens, d_model]."""
        pre = (rows - self.b_dec if self.centred else rows) @ self.w_enc + self.b_enc
        top = np.argpartition(pre, -self.k, axis=1)[:, -self.k :]
        out = np.zeros_like(pre)
        np.put_along_axis(out, top, np.maximum(np.take_along_axis(pre, top, 1), 0), 1)
        return out

    def decode(self, activations: Rows) -> Rows:
        """Reconstructed raw residuals [tokens, d_model]."""
        return activations @ self.w_dec + self.b_dec


def reconstruction(dictionary: Dictionary, rows: Rows) -> dict[str, float]:
    """L0 and FVU on all `rows`, and on those that the training filter would have kept."""
    counts, outputs = [], []
    for part in chunks(rows):
        activations = dictionary.encode(part)
        counts.append((activations > 0).sum(1))
        outputs.append(dictionary.decode(activations))
    output, kept = np.concatenate(outputs), capture.keep_rows(rows)
    return {
        "tokens": len(rows),
        "l0": round(float(np.concatenate(counts).mean()), 4),
        "fvu": round(fvu(rows, output), 5),
        "fvu_without_long_rows": round(fvu(rows[kept], output[kept]), 5),
        "long_rows": int((~kept).sum()),
    }


def firing_counts(dictionary: Dictionary, rows: Rows) -> NDArray[np.int64]:
    """On how many of `rows` each latent fires, [d_sae]."""
    counts = np.zeros(len(dictionary.b_enc), dtype=np.int64)
    for part in chunks(rows):
        counts += (dictionary.encode(part) > 0).sum(0)
    return counts


def agreement(work: Path, own: Path, name: str, dictionary: Dictionary) -> dict[str, float]:
    """The shipped float16 formula against the outputs SAELens gave at the end of training.

    `relative_change` is the rms difference of the two outputs over the rms centred residual.
    """
    rows: Rows = np.load(work / "heldout.npy")
    trained: Rows = np.load(own / f"{name}-heldout-outputs.npy")
    shipped = np.concatenate([dictionary.decode(dictionary.encode(p)) for p in chunks(rows)])
    change = ((trained.astype(np.float64) - shipped) ** 2).sum()
    spread = ((rows - rows.astype(np.float64).mean(0)) ** 2).sum()
    return {
        "heldout_fvu_float32": round(fvu(rows, trained), 5),
        "heldout_fvu_float16": round(fvu(rows, shipped), 5),
        "relative_change": round(float(np.sqrt(change / spread)), 6),
    }


Edit = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def cross_entropy(model: Any, layer: int, sequences: list[Sequence], edit: Edit | None) -> float:
    """Mean next-token CE in nats when `edit` replaces the hooked residuals of all that counts.

    `edit` maps raw residuals [tokens, d_model] to the same shape. Scored is what follows a token
    that counts.
    """
    total, count = 0.0, 0
    for one in sequences:

        def replace(_module: Any, _args: Any, output: Any, skipped: int = one.skipped) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if edit is not None:
                hidden = hidden.clone()
                hidden[0, skipped:] = edit(hidden[0, skipped:])
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = model.model.layers[layer].register_forward_hook(replace)
        try:
            ids = torch.tensor([one.ids])
            first = one.skipped - 1  # its residual is not replaced, the token it predicts counts
            logits = model(input_ids=ids, use_cache=False).logits[0, first:-1]
            wanted = ids[0, first + 1 :]
            total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            count += len(wanted)
        finally:
            handle.remove()
    return total / count


def as_edit(dictionary: Dictionary) -> Edit:
    """Replace residuals by their reconstruction."""
    return lambda rows: torch.from_numpy(dictionary.decode(dictionary.encode(rows.numpy())))


def recovered(
    model: Any, layer: int, dictionaries: dict[str, Dictionary], sequences: list[Sequence]
) -> dict[str, Any]:
    """CE clean, with zeros and with each dictionary, in nats per token of the sequences."""
    clean = cross_entropy(model, layer, sequences, None)
    zero = cross_entropy(model, layer, sequences, torch.zeros_like)
    result: dict[str, Any] = {"clean": clean, "zero": zero}
    result["tokens"] = sum(one.counted for one in sequences)
    for name, dictionary in dictionaries.items():
        result[name] = cross_entropy(model, layer, sequences, as_edit(dictionary))
    return result


def in_nats(entropy: dict[str, Any], name: str) -> dict[str, Any]:
    """What `recovered` found for one dictionary, and the share of the loss that it recovers."""
    gain = entropy["zero"] - entropy["clean"]
    return {
        "ce_nats": {k: round(entropy[k], 4) for k in ("clean", "zero")}
        | {"dictionary": round(entropy[name], 4), "tokens": entropy["tokens"]},
        "ce_recovered": round((entropy["zero"] - entropy[name]) / gain, 4),
    }


def provenance(subject: Subject, facts: dict[str, Any]) -> dict[str, Any]:
    """What both dictionaries were trained on and with."""
    sources = [
        {**asdict(source), "tokens": facts["tokens_by_package"][source.package]}
        for source in corpus.SOURCES
    ]
    libraries, most = (*LIBRARIES, subject.package), corpus.MAX_TOKENS
    found: dict[str, Any] = {
        "model": {
            "name": subject.model,
            "package": subject.package,
            "gguf_sha256": subject.gguf_sha256,
            "dtype": "float32 (dequantised)",
            "terms": subject.terms,
        },
        "hook": subject.hook,
        "corpus": {
            "sources": sources,
            "seed": corpus.SEED,
            "sequence": f"{subject.first_token} and at most {most} tokens of one document",
            "training_tokens": facts["train"]["tokens"] - facts["train"]["dropped"],
            "dropped_tokens": facts["train"]["dropped"],
            "dropped_rule": "skipped tokens; rows not finite; rows longer than 2.5 median norms",
            "capture_wall_seconds": facts["wall_seconds"],
        },
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "machine": MACHINE,
        "date": datetime.date.today().isoformat(),
    }
    if subject.answers is not None:
        found["corpus"]["chat"] = {
            **facts["chat"],
            "held_out_answers": subject.heldout_answers,
            "sequence": "a question and the model's own answer in its template; skipped is what "
            "all chats begin with",
            "drawn": f"{answers.COUNT:,} questions of questions.py (seed {questions.SEED}), at "
            f"temperature {answers.TEMPERATURE}, of the {answers.TOP_K} likeliest tokens, at most "
            f"{answers.NEW_TOKENS} new ones; a seed a batch, kept beside each answer",
        }
    return found


def run(subject: Subject, work: Path, model_folder: Path, names: list[str], own: Path) -> None:
    """Measure the shipped dictionaries `names` and write a training.json beside each.

    Rows are those of `work`; `own` holds what training left of this pair.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = json.loads((work / "capture.json").read_text())
    dictionaries = {name: Dictionary.load(subject.target / name) for name in names}
    tokenizer = AutoTokenizer.from_pretrained(str(model_folder))
    model = AutoModelForCausalLM.from_pretrained(str(model_folder), dtype=torch.float32).eval()
    lines = calibration_sequences(tokenizer, subject.first_token)
    plain = lines[:: max(1, len(lines) // CE_LINES)]
    entropy = recovered(model, subject.layer, dictionaries, plain)
    chats: dict[str, Any] = {}
    if subject.answers is not None:
        held = answers.read(subject.answers)[-subject.heldout_answers :][:CE_CHATS]
        asked = [corpus.chat(one["question"], one["answer"], tokenizer) for one in held]
        chats = recovered(model, subject.layer, dictionaries, asked)
    training: Rows = np.load(work / "train.npy", mmap_mode="r")
    order = np.sort(np.random.default_rng(0).permutation(len(training))[:DEAD_ROWS])
    for name, dictionary in dictionaries.items():
        trained = json.loads((own / f"{name}.json").read_text())
        norms = np.linalg.norm(dictionary.w_dec.astype(np.float64), axis=1)
        counts = firing_counts(dictionary, training[order])
        measured = {
            "calibration": reconstruction(dictionary, np.load(work / "calibration.npy")),
            "heldout": reconstruction(dictionary, np.load(work / "heldout.npy")),
            "float16": agreement(work, own, name, dictionary),
            "dead_share": round(float((counts == 0).mean()), 4),
            "dead_rule": f"fires on none of {len(order):,} training tokens",
            **in_nats(entropy, name),
            "decoder_row_norms": [round(float(norms.min()), 5), round(float(norms.max()), 5)],
        }
        if chats:
            rows = np.load(work / "heldout-chat.npy")
            measured["heldout_chat"] = reconstruction(dictionary, rows) | in_nats(chats, name)
        units = "raw residuals in and out; the training scale is folded into the weights"
        result = {"measured": measured, "training": trained, "units": units}
        result |= provenance(subject, facts)
        result["format"] = "weights float16, arithmetic float32, W_dec rows of unit norm"
        (subject.target / name / "training.json").write_text(json.dumps(result, indent=2) + "\n")
        print(name, json.dumps(measured, indent=2), flush=True)
