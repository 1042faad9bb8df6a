"""The JSON form of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.views.questions import Answer


def answer_document(answer: Answer, lexicon: Sequence[str] = ()) -> JsonObject:
    """Return an answer: its tokens, and activations or texts; ``problem`` where there is none.

    ``concept`` of a text are the places of lexicon words in it: first character, and one beyond.
    """
    document: JsonObject = {"name": answer.key.name, "text": answer.text}
    if answer.problem:
        return {**document, "problem": answer.problem}
    document["tokens"] = [{"text": word.text, "steered": word.steered} for word in answer.words]
    if "latents" in answer.asked:
        document["latents"] = [
            {"side": side, "latent": latent, "activations": list(found)}
            for (side, latent), found in answer.activations.items()
        ]
        return document
    pattern = lexicon_pattern(lexicon) if lexicon else None
    texts: list[Json] = []
    for one in answer.texts:
        words = mentions(pattern, one.text, answer.text) if pattern is not None else []
        texts.append(
            {
                "arm": one.arm,
                "strength": one.strength,
                "norm": one.norm,
                "text": one.text,
                "afterSteered": one.after_steered,
                "concept": [[word.start, word.end] for word in words],
            }
        )
    document["texts"] = texts
    return document
