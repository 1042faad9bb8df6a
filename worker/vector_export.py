"""``python -m loopscope.worker.vector_export``: one arm's vector as a file with a self-test.

One request of JSON comes in, one answer goes out. What builds the vector is the code of the stage
*steering*; what is expected of it is computed here, on the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from loopscope.numerics.statistics.sampling import SamplingRule
from loopscope.numerics.steering.generation import generate
from loopscope.numerics.steering.next_tokens import next_logits
from loopscope.specs.hooks import Hook
from loopscope.specs.payloads.references import DecompositionReference, ModelPlace
from loopscope.specs.payloads.steering import Side, SteeringPayload
from loopscope.specs.spec_json import SteeredPositionsJson
from loopscope.specs.vectors import (
    LAYOUT,
    Measured,
    NextTokens,
    Passport,
    SelfTest,
    VectorDictionary,
    VectorFormat,
    VectorPlace,
)
from loopscope.state.artifacts.store import KeptShards
from loopscope.state.failures import TerminalFailure, TransientFailure
from loopscope.worker.context import StageContext
from loopscope.worker.models import AGREEMENT_TOLERANCE
from loopscope.worker.runner import check_device, torch_threads
from loopscope.worker.shards import Shards
from loopscope.worker.stages.steering.cells import Cell, added_vectors
from loopscope.worker.stages.steering.run import SteeringRun, prepare
from loopscope.worker.vector_files import write_vector
from loopscope.worker.warm import WarmInputs

LIKELIEST = 10
NEW_TOKENS = 16
_RULES = {
    "all": "every token of the text but BOS, and every token that is generated",
    "opening": "every token of the text but BOS, and none that is generated",
    "generated": "the last token of the text, and every token that is generated",
    "assistant": "from the token that decides the assistant's first word on, generated ones too",
}


class VectorRequest(TypedDict):
    """Which vector is to be written, in what layout and where.

    ``work`` is the payload of its steering with one opening, on which the self-test rests;
    ``artifacts`` maps the digest of each that it names to its verified folder.
    """

    work: SteeringPayload
    artifacts: dict[str, str]
    measured: Measured
    format: VectorFormat
    path: str
    device: str


class WrittenVector(TypedDict):
    """What was written, in few words."""

    width: int
    hook: str


def main() -> None:
    """Answer the request on standard input: ``written``, or ``error``."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints is nothing to who asked
    request: VectorRequest = json.load(sys.stdin)
    torch.set_num_threads(torch_threads())
    torch.set_grad_enabled(False)
    try:
        check_device(request["device"])
        answer: dict[str, object] = {"written": written(request, _context(request))}
    except (TerminalFailure, TransientFailure) as failure:
        answer = {"error": str(failure)}
    with answers:
        json.dump(answer, answers)


def written(request: VectorRequest, context: StageContext) -> WrittenVector:
    """Write the file. Raises TerminalFailure and TransientFailure."""
    run = prepare(request["work"], context)
    measured = request["measured"]
    arm, strength = measured["arm"], measured["strength"]
    _refuse_clamped(run, arm)
    cell = Cell(arm, strength["strength"], strength["norm"])
    vector = added_vectors(run.arms, [cell], run.model.width(run.payload["hook"]))[0]
    passport = _passport(run, measured)
    write_vector(
        Path(request["path"]),
        request["format"],
        vector.numpy(),
        passport,
        _self_test(run, cell, vector.to(run.context.device)),
        str(run.model.hf_model.config.get_text_config().model_type),
    )
    return {"width": len(vector), "hook": passport["place"]["hook"]}


class _NothingKept(KeptShards):
    """A run that is read only."""

    def sealed(self, name: str) -> Path | None:
        return None

    def seal(self, name: str, write: Callable[[Path], None]) -> Path:
        raise OSError(f"{name} is not kept")

    def names(self) -> list[str]:
        return []


def _context(request: VectorRequest) -> StageContext:
    warm, device, folders = WarmInputs(), request["device"], request["artifacts"]
    return StageContext(
        device=device,
        model=lambda ref: warm.model(ref, device, lambda *_: None),
        dictionary=lambda ref: warm.dictionary(ref, lambda *_: None),
        artifact=lambda _stage, digest: Path(folders[digest]),
        shards=Shards(_NothingKept()),
        progress=lambda *_: None,
    )


def _refuse_clamped(run: SteeringRun, arm: str) -> None:
    if arm not in run.arms.vectors:
        raise TerminalFailure("NothingToSteer", f"{arm}: {run.arms.missing.get(arm, 'not there')}")
    if run.clamped is not None and arm in run.clamped.members:
        raise TerminalFailure(
            "NotExpressible",
            f"the arm {arm} clamps: what it adds depends on the activations of its latents at each "
            "token, so no one vector does the same; steer with method add to export one",
        )


def _passport(run: SteeringRun, measured: Measured) -> Passport:
    work = run.payload
    latents = run.arms.latents.get(measured["arm"], {})
    return {
        "layout": LAYOUT,
        "model": {
            "name": work["model"]["name"],
            "source": _source(work["model"]["source"]),
            "identity": work["model"]["identity"],
            "dtype": work["model"]["dtype"],
            "quantised": work["model"].get("quantised"),
            "files": dict(sorted(work["model"]["files"].items())),
        },
        "coarse": _dictionary(work["coarse"], "coarse", latents),
        "fine": _dictionary(work["fine"], "fine", latents),
        "place": _place(run),
        **measured,
    }


def _source(place: ModelPlace) -> str | None:
    match place["kind"]:
        case "hub":
            return f"{place['repo']}@{place['revision']}"
        case "package":
            return place["package"]
        case _:
            return None


def _dictionary(
    side: DecompositionReference, name: Side, latents: dict[str, list[int]]
) -> VectorDictionary:
    reference = side["dictionary"]
    return {
        "identity": reference["identity"],
        "architecture": reference["architecture"],
        "files": dict(sorted(reference["files"].items())),
        "latents": latents.get(name, []),
    }


def _place(run: SteeringRun) -> VectorPlace:
    hook = Hook.parse(run.payload["hook"])
    sides: dict[str, Literal["input", "output"]] = {"resid_pre": "input", "resid_post": "output"}
    side = sides.get(hook.stream)
    block = run.model.causal.blocks[hook.block]
    names = {module: name for name, module in run.model.hf_model.named_modules()}
    positions = run.payload.get("positions", "all")
    return {
        "hook": str(hook),
        "block": hook.block,
        "module": None if side is None else names[block],
        "side": side,
        "width": run.model.width(run.payload["hook"]),
        "positions": positions,
        "rule": f"added at {_rule(positions)}",
    }


def _rule(positions: SteeredPositionsJson) -> str:
    if isinstance(positions, str) and positions in _RULES:
        return _RULES[positions]
    return f"the one token that positions {json.dumps(positions)} names, and none that is generated"


def _self_test(run: SteeringRun, cell: Cell, vector: Float[Tensor, " width"]) -> SelfTest:
    tokens, steered = run.openings[0], run.steered[0]

    def after(places: list[int]) -> Tensor:
        return next_logits(run.model.causal, run.place, tokens, vector, places).cpu()

    expected = after(steered)
    return {
        "text": run.payload["openings"][0]["text"],
        "tokens": tokens,
        "steered": steered,
        "steers_generated": run.steers_generated,
        "unsteered": _likeliest(after([])),
        "expected": _likeliest(expected),
        "everywhere": _likeliest(after(list(range(len(tokens))))),
        "unsteered_greedy": _greedy(run, Cell("none", 0.0)),
        "greedy": _greedy(run, cell),
        "tolerance": AGREEMENT_TOLERANCE[run.model.dtype] * float(expected.abs().max()),
    }


def _likeliest(logits: Float[Tensor, " vocabulary"]) -> NextTokens:
    found = torch.sort(logits, descending=True, stable=True)
    return {
        "tokens": found.indices[:LIKELIEST].tolist(),
        "logits": found.values[:LIKELIEST].tolist(),
    }


def _greedy(run: SteeringRun, cell: Cell) -> list[int]:
    """Return what our own decoding makes of the text, with its cache and its split at the hook."""
    steps = min(NEW_TOKENS, run.payload["maxNewTokens"])
    found = generate(
        run.model.causal,
        run.place,
        [run.openings[0]],
        run.intervention([cell]),
        torch.zeros(1, steps),
        SamplingRule(greedy=True),
        eos_tokens=run.model.eos_tokens,
        pad_token=run.model.pad_token,
        reach=run.reach([(0, cell)]),
    )
    return found.tokens[0]


if __name__ == "__main__":
    main()
