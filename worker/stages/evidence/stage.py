"""Stage *evidence*: what the latents of a mapping fire on, token by token.

The latents are known only after the mapping, so the few prompts that show them are run once more:
at most ``LATENTS_MAX`` latents and a control each, with ``topPrompts`` and ``randomPrompts``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.numerics.latents.nearest import nearest_rows, unit_rows
from loopscope.numerics.model.lens import pushed_tokens
from loopscope.numerics.model.normalisation import normalisation_of
from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.evidence import (
    COSINES,
    FIRINGS,
    LENS,
    NEAREST,
    SHOWN_LATENTS,
    SHOWN_PROMPTS,
    TOKENS,
)
from loopscope.specs.artifacts.mapping import PAIRS
from loopscope.specs.hooks import Hook
from loopscope.specs.payloads.evidence import EvidenceMetrics, EvidencePayload
from loopscope.specs.payloads.references import DictionaryReference
from loopscope.specs.payloads.steering import SIDES, Side
from loopscope.specs.shown_latents import ShownLatent, drawn_order
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import EncodedText, encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.capture.in_context import Beginnings, rows_read
from loopscope.worker.stages.capture.stage import captured_shards
from loopscope.worker.stages.evidence.chosen import (
    Decomposed,
    ShownPrompt,
    latents_of,
    shown_prompts,
)
from loopscope.worker.stages.tables import ARROW_TYPES, read_columns, write_table

NEAREST_MAX = 8
PUSHED_TOKENS = 10
SHARDS = "evidence-"
ADDED_STREAMS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Streams whose vectors are part of the residual stream, which the unembedding reads."""


def run(payload: EvidencePayload, context: StageContext, out: Path) -> EvidenceMetrics:
    """Write latents, prompts, tokens with their activations, nearest latents and logit lens.

    Raises what a capture of these prompts raises.
    """
    sides = {side: Decomposed.read(payload[side], context) for side in SIDES}
    shown = latents_of(payload, sides, context)
    texts, ids = sides["coarse"].texts, sides["coarse"].ids
    drawn = drawn_order(texts)
    wanted = [
        shown_prompts(
            sides[one.side].of(one.latent), drawn, payload["topPrompts"], payload["randomPrompts"]
        )
        for one in shown
    ]
    numbers = sorted({prompt.number for prompts in wanted for prompt in prompts})
    model = context.model(payload["model"])
    encoded = encoded_texts(
        model, payload.get("chat"), [texts[n] for n in numbers], spans=has_spans(model)
    )
    firings = _firings(payload, shown, wanted, numbers, encoded, ids, model, context)
    _write_shown(out, shown, wanted, ids)
    _write_tokens(out, model, encoded, [ids[n] for n in numbers], payload)
    kept = firings.write(out, shown, ids)
    _write_decoders(out, payload, shown, context)
    aggregation = str(sides["coarse"].features["aggregation"][0])
    return {
        "latents": len(shown),
        "prompts": len(numbers),
        "tokens": sum(len(one.tokens) - 1 for one in encoded),
        "firings": kept,
        "largest_difference": firings.largest_difference(wanted, aggregation),
        "lens": _write_lens(out, payload, shown, model, context),
    }


def has_spans(model: LoadedModel) -> bool:
    """Whether the tokenizer says which characters a token stands for."""
    return bool(getattr(model.tokenizer, "is_fast", False))


@dataclass
class _Firings:
    """Activations of shown latents on the tokens of their prompts, by latent and prompt.

    ``tokens`` [tokens] are a prompt's, without BOS; ``read`` are the places whose activations make
    the prompt's.
    """

    tokens: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    read: dict[int, list[int]] = field(default_factory=dict)

    def write(self, out: Path, shown: Sequence[ShownLatent], ids: Sequence[str]) -> int:
        """Write the activations above 0; return how many there are."""
        rows = [
            (shown[latent].side, shown[latent].latent, ids[prompt], place + 1, found[place])
            for (latent, prompt), found in sorted(self.tokens.items())
            for place in np.flatnonzero(found > 0).tolist()
        ]
        write_rows(out, FIRINGS, rows)
        return len(rows)

    def largest_difference(
        self, wanted: Sequence[Sequence[ShownPrompt]], aggregation: str
    ) -> float:
        """Return how far the prompts' activations are from those of before, at most."""
        worst = 0.0
        for latent, prompts in enumerate(wanted):
            largest = max((one.activation for one in prompts), default=0.0)
            for one in prompts:
                read = self.tokens[latent, one.number][np.asarray(self.read[one.number]) - 1]
                again = {"last": read[-1], "max": read.max(), "mean": read.mean(dtype=np.float64)}
                difference = abs(float(again[aggregation]) - one.activation)
                worst = max(worst, difference / largest if largest else float(difference > 0))
        return worst


def _firings(
    payload: EvidencePayload,
    shown: Sequence[ShownLatent],
    wanted: Sequence[Sequence[ShownPrompt]],
    numbers: Sequence[int],
    encoded: Sequence[EncodedText],
    ids: Sequence[str],
    model: LoadedModel,
    context: StageContext,
) -> _Firings:
    """Run the prompts and encode what stands at the hook, shard after shard."""
    found = _Firings(
        read={n: one.read(payload["positions"]) for n, one in zip(numbers, encoded, strict=True)}
    )
    if not numbers:
        return found
    tokens = [one.tokens for one in encoded]
    named = [ids[number] for number in numbers]
    shards = captured_shards(model, payload["hook"], tokens, named, context, prefix=SHARDS)
    latents_of_prompt = defaultdict(list)
    for latent, prompts in enumerate(wanted):
        for prompt in prompts:
            latents_of_prompt[prompt.number].append(latent)
    readers = {side: reader_of(payload[side]["dictionary"], side, shown, context) for side in SIDES}
    beginnings = Beginnings(model, payload["hook"])
    for path in shards:
        rows = load_file(path)
        places = [int(name) for name in sorted(rows)]
        texts = [rows[f"{place:08d}"] for place in places]
        begins = [tokens[place][0] for place in places]
        ends = np.cumsum([len(text) for text in texts])
        read = {
            latent: column
            for reader in readers.values()
            if reader is not None
            for latent, column in reader.in_texts(texts, begins, beginnings, context).items()
        }
        for place, text, end in zip(places, texts, ends, strict=True):
            span = slice(end - len(text), end)
            for latent in latents_of_prompt[numbers[place]]:
                found.tokens[latent, numbers[place]] = read[latent][span]
    return found


@dataclass(frozen=True)
class ShownReader:
    """The part of a dictionary that reads the shown latents, with their places in the list."""

    dictionary: SparseDictionary
    numbers: tuple[int, ...]
    places: tuple[int, ...]

    def in_texts(
        self,
        texts: Sequence[Tensor],
        first_tokens: Sequence[int],
        beginnings: Beginnings,
        context: StageContext,
    ) -> dict[int, NDArray[np.float32]]:
        """Return the activations of each shown latent, by its place in the list, text after text.

        ``texts`` are without their first tokens.
        """
        read = rows_read(self.dictionary, texts, first_tokens, beginnings, context)
        rows = torch.cat(read).to(context.device)
        dense = self.dictionary.activations(rows.float(), self.numbers).cpu().numpy()
        self.dictionary.release()
        return {place: dense[:, column] for column, place in enumerate(self.places)}


def reader_of(
    reference: DictionaryReference,
    side: Side,
    shown: Sequence[ShownLatent],
    context: StageContext,
) -> ShownReader | None:
    """Return what reads the latents of one side among those that are shown; None if none is."""
    places = tuple(place for place, one in enumerate(shown) if one.side == side)
    if not places:
        return None
    dictionary = context.dictionary(reference)
    small, numbers = dictionary.subset([shown[place].latent for place in places])
    return ShownReader(small.to(context.device), numbers, places)


def _write_shown(
    out: Path,
    shown: Sequence[ShownLatent],
    wanted: Sequence[Sequence[ShownPrompt]],
    ids: Sequence[str],
) -> None:
    rows = [
        (one.side, one.latent, one.role, -1 if one.anchor is None else one.anchor) for one in shown
    ]
    write_rows(out, SHOWN_LATENTS, rows)
    prompts = [
        (one.side, one.latent, ids[p.number], p.chosen, p.rank, p.activation)
        for one, chosen in zip(shown, wanted, strict=True)
        for p in chosen
    ]
    write_rows(out, SHOWN_PROMPTS, prompts)


def _write_tokens(
    out: Path,
    model: LoadedModel,
    encoded: Sequence[EncodedText],
    ids: Sequence[str],
    payload: EvidencePayload,
) -> None:
    rows = []
    for name, one in zip(ids, encoded, strict=True):
        read = set(one.read(payload["positions"]))
        words = token_texts(one) if has_spans(model) else [model.written(t) for t in one.tokens]
        rows += [(name, place, words[place], place in read) for place in range(1, len(one.tokens))]
    write_rows(out, TOKENS, rows)


def token_texts(one: EncodedText) -> list[str]:
    """Return what each token adds to the text: put together they are the text, but for BOS.

    Characters that a tokenizer gives to no token, such as a space, go to the next one; a character
    of several tokens goes to the first of them.
    """
    found, before = [""], 0
    for _, end in one.spans[1:]:
        found.append(one.whole[before : max(before, end)])
        before = max(before, end)
    return found


def _write_decoders(
    out: Path, payload: EvidencePayload, shown: Sequence[ShownLatent], context: StageContext
) -> None:
    """Write the nearest latents of the same dictionary, and all cosines across."""
    nearest: list[tuple[object, ...]] = []
    latents: dict[Side, list[int]] = {
        side: [one.latent for one in shown if one.side == side] for side in SIDES
    }
    for side in SIDES:
        dictionary = context.dictionary(payload[side]["dictionary"])
        decoder = dictionary.w_dec.to(context.device)
        if latents[side]:
            others, cosines = nearest_rows(decoder, latents[side], NEAREST_MAX, dictionary.release)
            nearest += [
                (side, latent, other, cosine)
                for latent, row, values in zip(
                    latents[side], others.tolist(), cosines.cpu().numpy(), strict=True
                )
                for other, cosine in zip(row, values, strict=True)
            ]
    write_rows(out, NEAREST, nearest)
    write_rows(out, COSINES, _across(payload, latents, context))


def _across(
    payload: EvidencePayload, latents: Mapping[Side, list[int]], context: StageContext
) -> list[tuple[object, ...]]:
    """Return the cosines of shown coarse latents and the fine ones that are shown or kept."""
    mapping = context.artifact("mapping", payload["mapping"]["digest"])
    kept = read_columns(mapping / PAIRS.name)["fine"].tolist()
    fine = sorted({*latents["fine"], *kept})
    if not latents["coarse"] or not fine:
        return []
    decoders = [context.dictionary(payload[side]["dictionary"]) for side in SIDES]
    left, right = (
        unit_rows(dictionary.w_dec, numbers)
        for dictionary, numbers in zip(decoders, (latents["coarse"], fine), strict=True)
    )
    table = (left @ right.T).clamp(-1.0, 1.0).cpu().numpy()
    return [
        (coarse, other, table[row, column])
        for row, coarse in enumerate(latents["coarse"])
        for column, other in enumerate(fine)
    ]


def _write_lens(
    out: Path,
    payload: EvidencePayload,
    shown: Sequence[ShownLatent],
    model: LoadedModel,
    context: StageContext,
) -> str | None:
    """Write the logit lens; return why there is none, or None."""
    if not shown:
        return "no latent is shown"
    written = payload.get("writeHook", payload["hook"])
    if Hook.parse(written).stream not in ADDED_STREAMS:
        return f"what stands at {written} is not added to the residual stream"
    norm = _final_norm(model)
    formula = None if norm is None else normalisation_of(norm)
    if formula is None:
        return "the model's final norm is neither a LayerNorm nor an RMSNorm"
    rows: list[tuple[object, ...]] = []
    for side in SIDES:
        latents = [one.latent for one in shown if one.side == side]
        if not latents:
            continue
        decoder = context.dictionary(payload[side]["dictionary"]).w_dec
        pushed = pushed_tokens(
            model.causal.head,
            formula,
            decoder[latents].to(model.causal.head.weight.device),
            PUSHED_TOKENS,
            len(model.tokenizer),
        )
        for direction, tokens, logits in (
            ("up", pushed.up, pushed.up_logits),
            ("down", pushed.down, pushed.down_logits),
        ):
            rows += [
                (side, latent, direction, rank, model.written(token), logit)
                for latent, row, values in zip(
                    latents, tokens.tolist(), logits.cpu().numpy(), strict=True
                )
                for rank, (token, logit) in enumerate(zip(row, values, strict=True))
            ]
    write_rows(out, LENS, rows)
    return None


def _final_norm(model: LoadedModel) -> torch.nn.Module | None:
    named = getattr(model.bridge, "ln_final", None)
    try:
        return None if named is None else model.hf_model.get_submodule(named.name)
    except AttributeError:
        return None


def write_rows(out: Path, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows as a table of the declared types; there may be none."""
    columns: Mapping[str, Any] = {
        column.name: pyarrow.array([row[place] for row in rows], ARROW_TYPES[column.type])
        for place, column in enumerate(table.columns)
    }
    write_table(out, table, columns)
