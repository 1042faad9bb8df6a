"""The chat model's own answers to `questions`, drawn through its template, one file for all.

Sampled at temperature 0.8 among the 50 likeliest tokens, at most 48 new tokens, in batches with a
seed each. ``answers.jsonl.gz`` holds what was drawn, since sums differ in their last bits between
processors and a draw may turn with them.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import questions
import torch

COUNT = 3_200
BATCH = 64
NEW_TOKENS = 48
TEMPERATURE = 0.8
TOP_K = 50


@torch.inference_mode()
def draw(model: Any, tokenizer: Any, texts: list[str], seed: int) -> list[list[int]]:
    """New tokens of one answer to each question, without what ends it."""
    tokenizer.padding_side = "left"
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in texts
    ]
    batch = tokenizer(rendered, return_tensors="pt", padding=True, add_special_tokens=False)
    torch.manual_seed(seed)
    out = model.generate(
        **batch,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=TOP_K,
        top_p=1.0,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
    )
    new = out[:, batch["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in new]


def write(folder: Path, work: Path, target: Path) -> None:
    """Ask the model in `folder` all questions and write question, seed and answer to `target`.

    What was drawn stands in `work` batch by batch; a second call goes on there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    asked = questions.questions(COUNT)
    drawn = work / "answers"
    drawn.mkdir(exist_ok=True)
    started = time.monotonic()
    batches = [drawn / f"{start:05}.jsonl" for start in range(0, len(asked), BATCH)]
    for start, file in zip(range(0, len(asked), BATCH), batches, strict=True):
        if file.exists():
            continue
        part = asked[start : start + BATCH]
        found = draw(model, tokenizer, part, questions.SEED + start)
        lines = [
            json.dumps(
                {
                    "question": question,
                    "seed": questions.SEED + start,
                    "tokens": len(ids),
                    "answer": tokenizer.decode(ids),
                },
                ensure_ascii=False,
            )
            for question, ids in zip(part, found, strict=True)
        ]
        unfinished = file.with_suffix(".part")
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
        unfinished.rename(file)
        print(f"answers from {start}: {time.monotonic() - started:.0f} s", flush=True)
    with gzip.GzipFile(target, "wb", mtime=0) as whole:
        whole.write(b"".join(file.read_bytes() for file in batches))


def read(path: Path) -> list[dict[str, Any]]:
    """Question, seed, number of tokens and text of each answer."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
