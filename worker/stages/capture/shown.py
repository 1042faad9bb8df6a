"""A few prompts token by token, so that people see what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from loopscope.specs.artifacts.capture import TOKENS, ShownPrompt, ShownTokens
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.worker.encoding import EncodedText
from loopscope.worker.stages.tables import write_document
from loopscope.worker.tokenizers import TextEncoder

PROMPTS_PER_CONDITION = 2


def write_shown(
    encoder: TextEncoder,
    payload: CapturePayload,
    encoded: Sequence[EncodedText],
    places: Sequence[Sequence[int]],
    out: Path,
) -> None:
    """Write the tokens of a few prompts, where a template or positions by meaning are asked for."""
    if "chat" not in payload and payload["positions"] in ("last", "all"):
        return
    seen: Counter[str] = Counter()
    shown: list[ShownPrompt] = []
    for prompt, one, read in zip(payload["prompts"], encoded, places, strict=True):
        seen[prompt["condition"]] += 1
        if seen[prompt["condition"]] <= PROMPTS_PER_CONDITION:
            shown.append(
                {
                    "prompt_id": prompt["id"],
                    "tokens": [
                        {
                            "text": encoder.written(token),
                            "part": one.part(place),
                            "read": place in read,
                        }
                        for place, token in enumerate(one.tokens)
                    ],
                }
            )
    record: ShownTokens = {"prompts": shown}
    write_document(out, TOKENS, record)
