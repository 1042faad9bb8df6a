"""Stage *capture*: the residual vectors of two prompt sets at one hook, with their norms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loopscope.numerics.model.batching import in_parts, plan_batches
from loopscope.numerics.model.capture import NormStatistics, norm_statistics
from loopscope.specs.artifacts.capture import (
    CALIBRATION,
    CAPTURED_PROMPTS,
    MEAN,
    NORMS,
    REFERENCE,
    RESIDUAL,
    WRITTEN,
    Norms,
)
from loopscope.specs.payloads.capture import (
    CapturedPrompt,
    CaptureMetrics,
    CapturePayload,
)
from loopscope.specs.payloads.references import Preflights
from loopscope.state.failures import TerminalFailure
from loopscope.worker.companions import ShardKind
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import EncodedText, encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.capture.forward_passes import ForwardPasses
from loopscope.worker.stages.capture.preflights import capture_preflights
from loopscope.worker.stages.capture.shown import write_shown
from loopscope.worker.stages.tables import write_document, write_table

TOKENS_PER_BATCH_MAX = 512
"""About a second of work for a small model on a CPU; part of what makes payload bytes equal."""
BATCHES_PER_SHARD = 4
PHASE = "Capturing"
WRITTEN_SHARDS = "written-"
Pieces = list[tuple[str, list[int]]]
"""Pieces of calibration text: the text that each is from, and its tokens with BOS."""


class WrittenWidth(TypedDict, total=False):
    """The metric that only a capture with a write hook has."""

    d_write: int


def run(payload: CapturePayload, context: StageContext, out: Path) -> CaptureMetrics:
    """Write residual, prompts, norms, mean and calibration text; return the status's numbers.

    Norms and mean are over all tokens of the target and neutral prompts without BOS, whatever
    ``positions`` is, and those of the write hook where there is one. A capture does not know how
    its prompts are split.
    Raises TerminalFailure ``PromptTooLong``, ``ChatTemplateRefused``, ``NoSuchPosition``,
    ``HookNeverFired``, ``NotFinite`` or ``PreflightFailed``.
    """
    model = context.model(payload["model"])
    prompts = payload["prompts"]
    for hook in (payload["hook"], *([payload["writeHook"]] if "writeHook" in payload else [])):
        model.place(hook)
    encoded = encoded_prompts(model, payload)
    tokens = [one.tokens for one in encoded]
    kept_places = read_places(payload, encoded)
    write_shown(model, payload, encoded, kept_places, out)
    ids = [prompt["id"] for prompt in prompts]
    shards = captured_shards(model, payload["hook"], tokens, ids, context)
    rows = in_prompt_order(shards, len(prompts))
    norms = norm_statistics(torch.cat(_contrasted(payload["prompts"], rows)))
    preflights, reference = capture_preflights(
        model, payload["hook"], tokens, rows, norms, in_template="chat" in payload
    )
    _write_reference(kept_places, reference, out)
    pieces = calibration_pieces(model, payload)
    text_tokens = _write_calibration(model, payload["hook"], pieces, context, out)
    d_write: WrittenWidth = {}
    if "writeHook" in payload:
        norms, checks, d_write["d_write"] = _write_written(
            model, payload, payload["writeHook"], tokens, kept_places, pieces, context, out
        )
        preflights |= checks
    last_tokens = [
        model.decode([one[kept[-1]]]) for one, kept in zip(tokens, kept_places, strict=True)
    ]
    kept = _write(payload, rows, kept_places, norms, last_tokens, out)
    return {
        "prompts": len(rows),
        "tokens": len(kept),
        "d_model": int(kept.shape[1]),
        **d_write,
        "median_norm": norms.median_norm,
        "median_centred_norm": norms.median_centred_norm,
        "text_tokens": text_tokens,
        "preflights": preflights,
    }


def _write_reference(places: Sequence[Sequence[int]], found: dict[int, Tensor], out: Path) -> None:
    """Write what plain Hugging Face has for the kept rows of a few prompts, in their order."""
    kept = {i: kept_rows(row, places[i]) for i, row in found.items()}
    index = torch.tensor([i for i, row in kept.items() for _ in row], dtype=torch.int32)
    residual = torch.cat(list(kept.values())).contiguous()
    save_file({"prompt_index": index, "residual": residual}, out / REFERENCE.name)


def _write_calibration(
    model: LoadedModel, hook: str, pieces: Pieces, context: StageContext, out: Path
) -> int:
    """Write the vectors of every token but BOS of the calibration text; return their number."""
    rows = _calibration_rows(model, hook, pieces, context)
    save_file({"residual": rows}, out / CALIBRATION.name)
    return len(rows)


def calibration_pieces(model: LoadedModel, payload: CapturePayload) -> Pieces:
    """Return the calibration text in the pieces in which it is captured, in their order."""
    return [
        (f"calibration-{number:04d}", tokens)
        for number, text in enumerate(payload["calibrationText"])
        for tokens in _in_pieces(model, text, payload["maxTokens"])
    ]


def _calibration_rows(
    model: LoadedModel, hook: str, pieces: Pieces, context: StageContext, prefix: str = ""
) -> Tensor:
    ids, tokens = [one for one, _ in pieces], [tokens for _, tokens in pieces]
    shards = captured_shards(model, hook, tokens, ids, context, "calibration", prefix)
    return torch.cat(in_prompt_order(shards, len(pieces)))


def _write_written(
    model: LoadedModel,
    payload: CapturePayload,
    hook: str,
    tokens: list[list[int]],
    places: Sequence[Sequence[int]],
    pieces: Pieces,
    context: StageContext,
    out: Path,
) -> tuple[NormStatistics, Preflights, int]:
    """Write what stands where transcoders write; return its norms, its preflights and its width.

    The texts run once more: what stands at one hook depends on no other.
    """
    ids = [prompt["id"] for prompt in payload["prompts"]]
    shards = captured_shards(model, hook, tokens, ids, context, "capture", WRITTEN_SHARDS)
    rows = in_prompt_order(shards, len(tokens))
    norms = norm_statistics(torch.cat(_contrasted(payload["prompts"], rows)))
    checks, _ = capture_preflights(model, hook, tokens, rows, norms, in_template="chat" in payload)
    calibration = _calibration_rows(model, hook, pieces, context, WRITTEN_SHARDS)
    kept = torch.cat([kept_rows(row, one) for row, one in zip(rows, places, strict=True)])
    save_file({"residual": kept, "calibration": calibration}, out / WRITTEN.name)
    named = {f"{name}, at the write hook": numbers for name, numbers in checks.items()}
    return norms, named, int(kept.shape[1])


def _in_pieces(model: LoadedModel, text: str, tokens_max: int) -> list[list[int]]:
    """Return a text's tokens in pieces of at most ``tokens_max``, each with one BOS.

    Ordinary text may be cut anywhere; what one model takes whole is too long for another.
    """
    bos, *tokens = model.encode(text)
    limit = _tokens_max(model, tokens_max)
    return [[bos, *tokens[start : start + limit]] for start in range(0, len(tokens), limit)]


def encoded_prompts(model: LoadedModel, payload: CapturePayload) -> list[EncodedText]:
    """Return each prompt's tokens with one BOS. ``maxTokens`` counts tokens without BOS.

    Raises TerminalFailure ``PromptTooLong``: a prompt cut short would be another prompt.
    """
    limit = _tokens_max(model, payload["maxTokens"])
    prompts = payload["prompts"]
    texts = [prompt["text"] for prompt in prompts]
    spans = payload["positions"] not in ("last", "all")
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=spans)
    for prompt, one in zip(prompts, encoded, strict=True):
        if len(one.tokens) - 1 > limit:
            raise TerminalFailure(
                "PromptTooLong",
                f"prompt {prompt['id']} has {len(one.tokens) - 1} tokens, the limit is {limit}; "
                "shorten it or raise maxTokens",
            )
    return encoded


def read_places(payload: CapturePayload, encoded: Sequence[EncodedText]) -> list[list[int]]:
    """Return the places of each prompt's tokens that are kept.

    Raises TerminalFailure ``NoSuchPosition``.
    """
    places = []
    for prompt, one in zip(payload["prompts"], encoded, strict=True):
        try:
            places.append(one.read(payload["positions"]))
        except ValueError as error:
            raise TerminalFailure(
                "NoSuchPosition",
                f"prompt {prompt['id']} has no position {payload['positions']}: {error}; take it "
                "out, or choose other positions",
            ) from None
    return places


def _tokens_max(model: LoadedModel, tokens_max: int) -> int:
    return min(tokens_max, (model.context_tokens_max or tokens_max + 1) - 1)


def captured_shards(
    model: LoadedModel,
    hook: str,
    tokens: list[list[int]],
    ids: list[str],
    context: StageContext,
    kind: ShardKind = "capture",
    prefix: str = "",
) -> list[Path]:
    """Return the sealed shards, named after ``kind``, that hold every prompt's vectors.

    A shard has the vectors [tokens, width] of a prompt, without BOS, under its number in eight
    digits; a share returns its own ones alone. Shards with a ``prefix`` are of another hook than
    the capture's own, or of another stage: no other capture has them.
    """
    batches = plan_batches([len(t) for t in tokens], TOKENS_PER_BATCH_MAX)
    groups = [batches[i : i + BATCHES_PER_SHARD] for i in range(0, len(batches), BATCHES_PER_SHARD)]
    # halved batches have other last digits than the companions' own passes would
    alone = prefix or context.batch_divisor != 1
    companions = [] if alone else context.companions(kind)
    passes = ForwardPasses(model, hook, tokens, ids, companions)
    numbers = context.share.shards(len(groups)) if context.share else range(len(groups))
    total = sum(len(batch) for number in numbers for batch in groups[number])
    shards, done, tokens_done = [], 0, 0
    context.progress(PHASE, done, total, "prompts")
    for number in numbers:
        group = groups[number]
        name = f"{prefix}{kind}-{number:05d}.safetensors"
        path = context.shards.sealed(name)
        if path is None:
            passes.begin_shard()
            for batch in group:
                for part in in_parts(batch, context.batch_divisor):
                    found = passes.run(part)
                    tokens_done += sum(len(tokens[i]) for i in part)
                    context.progress(PHASE, done + found, total, "prompts", tokens_done)
            path = passes.seal(context.shards, name)
        done += sum(len(batch) for batch in group)
        context.progress(PHASE, done, total, "prompts", tokens_done)
        shards.append(path)
    return shards


def in_prompt_order(shards: list[Path], n_prompts: int) -> list[Tensor]:
    """Return each prompt's vectors ``[tokens, d_model]``, without BOS."""
    found: dict[str, Tensor] = {}
    for path in shards:
        found |= load_file(path)
    return [found[f"{i:08d}"] for i in range(n_prompts)]


def _write(
    payload: CapturePayload,
    rows: list[Tensor],
    places: Sequence[Sequence[int]],
    norms: NormStatistics,
    last_tokens: list[str],
    out: Path,
) -> Tensor:
    """Write residual, mean, norms and prompts; return the vectors of all tokens."""
    lengths = [len(row) for row in rows]
    every = torch.cat(rows)
    residual = torch.cat([kept_rows(row, kept) for row, kept in zip(rows, places, strict=True)])
    index = torch.arange(len(rows), dtype=torch.int32)
    counts = torch.tensor([len(kept) for kept in places])
    save_file(
        {
            "position": torch.tensor([p for kept in places for p in kept], dtype=torch.int32),
            "prompt_index": torch.repeat_interleave(index, counts),
            "residual": residual.contiguous(),
        },
        out / RESIDUAL.name,
    )
    save_file({"mean": norms.mean.contiguous()}, out / MEAN.name)
    write_document(out, NORMS, _norms_record(norms))
    _write_prompts(payload["prompts"], lengths, last_tokens, out)
    return every


def _contrasted(prompts: list[CapturedPrompt], rows: list[Tensor]) -> list[Tensor]:
    """Return the vectors of the target and neutral prompts."""
    return [
        vectors
        for prompt, vectors in zip(prompts, rows, strict=True)
        if prompt["condition"] != "hard-negative"
    ]


def kept_rows(rows: Tensor, places: Sequence[int]) -> Tensor:
    """Return the vectors at these places, BOS being 0; ``rows`` begin behind BOS."""
    return rows[torch.tensor(places) - 1]


def _norms_record(norms: NormStatistics) -> Norms:
    return {
        "median_norm": norms.median_norm,
        "median_centred_norm": norms.median_centred_norm,
        "mean_norm": norms.mean_norm,
        "n_tokens": norms.n_tokens,
        "population": "all tokens of the target and neutral prompts without BOS",
    }


def _write_prompts(
    prompts: list[CapturedPrompt], lengths: list[int], last_tokens: list[str], out: Path
) -> None:
    write_table(
        out,
        CAPTURED_PROMPTS,
        {
            "prompt_id": [prompt["id"] for prompt in prompts],
            "text": [prompt["text"] for prompt in prompts],
            "condition": [prompt["condition"] for prompt in prompts],
            "n_tokens": lengths,
            "last_token": last_tokens,
        },
    )
