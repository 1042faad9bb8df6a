"""Stage *ablation*: what target prompts lose of the concept where latents are out of the stream.

Out of h goes a_i · w_i at every token but BOS, a_i read on h itself: the dictionary's error and all
other latents stay. Steering shows that a direction suffices; this, whether the model uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.steering.fixed_text import hashed_order
from loopscope.numerics.steering.intervention import LatentReader
from loopscope.numerics.verdict.necessity import LossContrast, answer, loss_contrasts
from loopscope.specs.artifacts.ablation import (
    ABLATED,
    ABLATION,
    LOSSES,
    Ablation,
    AblationAnswer,
    AblationContrast,
)
from loopscope.specs.payloads.ablation import AblationMetrics, AblationPayload
from loopscope.specs.payloads.steering import SIDES
from loopscope.worker.concept_tokens import concept_tokens
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.ablation.chosen import Cut, cuts_of
from loopscope.worker.stages.ablation.losses import Loss, Prompts, members_of
from loopscope.worker.stages.evidence.stage import write_rows
from loopscope.worker.stages.prompts import read_prompts
from loopscope.worker.stages.tables import write_document

Columns = dict[str, NDArray[Any]]


def run(payload: AblationPayload, context: StageContext, out: Path) -> AblationMetrics:
    """Write losses, latents and answers; return the status numbers.

    Raises TerminalFailure ``NoConceptToken``, ``HookNeverFired``, ``NotFinite``, and what
    ``encode`` refuses.
    """
    model = context.model(payload["model"])
    chosen, held_out = _chosen_prompts(read_prompts(payload["coarse"], context), payload["prompts"])
    cuts = cuts_of(payload, context)
    concept = concept_tokens(model, payload["lexicon"])
    texts = [str(text) for text in chosen["text"]]
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=False)
    read = _prompts(payload, context, model, cuts, [one.tokens for one in encoded], concept)
    losses = read.losses()
    ids = [str(name) for name in chosen["prompt_id"]]
    _write_losses(out, losses, cuts, ids)
    _write_latents(out, cuts)
    contrasts = _contrasts(losses, cuts, len(ids), chosen.get("group"))
    answers = _answers(losses, cuts, contrasts)
    own = {cut.part: cut for cut in cuts if cut.control is None}
    document: Ablation = {
        "hook": payload["hook"],
        "anchor": own["anchor"].latents["coarse"][0],
        "children": own["both"].latents["fine"] if "both" in own else [],
        "prompts": len(ids),
        "held_out": held_out,
        "concept_tokens": [model.written(token) for token in concept],
        "draws": {
            name: len({cut.draw for cut in cuts if cut.control == name})
            for name in sorted({cut.control for cut in cuts if cut.control is not None})
        },
        "answers": answers,
        "contrasts": [_contrast_record(one) for one in contrasts],
    }
    write_document(out, ABLATION, document)
    first = {one.part: one.p_holm for one in contrasts if one.against == "nothing"}
    return {
        "prompts": len(ids),
        "held_out": held_out,
        "tokens": sum(len(one.tokens) - 1 for one in encoded),
        "latents": 1 + len(document["children"]),
        "concept_tokens": len(concept),
        "parts": {
            one["part"]: {
                "loss": one["loss"], "low": one["low"], "high": one["high"],
                "answer": one["answer"], "p": first[one["part"]],
            }
            for one in answers
        },
    }  # fmt: skip


def _chosen_prompts(prompts: Columns, most: int) -> tuple[Columns, bool]:
    """Return the columns of the target prompts that are read, and whether they chose nothing."""
    target = prompts["condition"] == "target"
    test = target & (prompts["split"] == "test")
    places = np.flatnonzero(test if test.any() else target)
    texts = [str(text) for text in prompts["text"][places]]
    kept = np.sort(places[hashed_order(texts)[:most]])
    return {name: column[kept] for name, column in prompts.items()}, bool(test.any())


def _prompts(
    payload: AblationPayload,
    context: StageContext,
    model: LoadedModel,
    cuts: list[Cut],
    tokens: list[list[int]],
    concept: list[int],
) -> Prompts:
    latents = {
        side: sorted({latent for cut in cuts for latent in cut.latents[side]}) for side in SIDES
    }
    readers = tuple(
        LatentReader.of(context.dictionary(payload[side]["dictionary"]), latents[side]).to(
            context.device
        )
        for side in SIDES
        if latents[side]
    )
    named: dict[str, list[int]] = {side: latents[side] for side in SIDES}
    members = members_of(cuts, named, context.device)
    place = model.place(payload["hook"])
    return Prompts(model, place, tokens, cuts, readers, members, concept, context)


def _write_losses(out: Path, losses: list[Loss], cuts: list[Cut], ids: list[str]) -> None:
    rows = [
        (
            ids[one["prompt"]], cuts[one["cut"]].part, cuts[one["cut"]].control or "",
            cuts[one["cut"]].draw, one["loss"], one["kl"], one["removed"], one["clean"],
        )
        for one in losses
    ]  # fmt: skip
    write_rows(out, LOSSES, rows)


def _write_latents(out: Path, cuts: list[Cut]) -> None:
    rows = [
        (cut.part, cut.control or "", cut.draw, side, latent, stands_for)
        for cut in cuts
        for side in SIDES
        for latent, stands_for in zip(cut.latents[side], cut.stands_for[side], strict=True)
    ]
    write_rows(out, ABLATED, rows)


def _of_cut(losses: list[Loss], number: int, name: str) -> NDArray[np.float64]:
    return np.array([dict(one)[name] for one in losses if one["cut"] == number], dtype=np.float64)


def _contrasts(
    losses: list[Loss], cuts: list[Cut], prompts: int, group: NDArray[Any] | None
) -> list[LossContrast]:
    own: dict[str, NDArray[np.float64]] = {}
    controls: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
    for number, cut in enumerate(cuts):
        values = _of_cut(losses, number, "loss")
        assert len(values) == prompts
        if cut.control is None:
            own[cut.part] = values
        else:
            controls.setdefault((cut.part, cut.control), []).append(values)
    together = {name: np.stack(drawn) for name, drawn in controls.items()}
    return loss_contrasts(own, together, None if group is None else group.astype(np.int64))


def _answers(
    losses: list[Loss], cuts: list[Cut], contrasts: list[LossContrast]
) -> list[AblationAnswer]:
    found: list[AblationAnswer] = []
    for number, cut in enumerate(cuts):
        if cut.control is not None:
            continue
        loss = next(
            one.contrast for one in contrasts if (one.part, one.against) == (cut.part, "nothing")
        )
        found.append(
            {
                "part": cut.part,
                "answer": answer(cut.part, contrasts),
                "loss": loss.estimate,
                "low": loss.low,
                "high": loss.high,
                "kl": float(_of_cut(losses, number, "kl").mean()),
                "removed": float(_of_cut(losses, number, "removed").mean()),
            }
        )
    return found


def _contrast_record(one: LossContrast) -> AblationContrast:
    return {
        "part": one.part,
        "against": one.against,
        "estimate": one.contrast.estimate,
        "low": one.contrast.low,
        "high": one.contrast.high,
        "p": one.p,
        "p_holm": one.p_holm,
        "between_draws": one.between_draws,
    }
