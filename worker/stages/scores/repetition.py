"""Repetition within a text."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from loopscope.numerics.steering.outcomes import distinct_share
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText

LEVEL = 9


def repetition(texts: Sequence[ScoredText]) -> Measured:
    """Return the shares of distinct n-grams of tokens, and how far each text compresses."""
    columns = {
        f"distinct_{n}_grams": [distinct_share(text.tokens, n) for text in texts] for n in (1, 2, 3)
    }
    return Measured({**columns, "compression": [compression(text.text) for text in texts]})


def compression(text: str) -> float:
    """Return bytes of a text (UTF-8) over those of its DEFLATE stream; NaN of an empty text.

    The stream is raw (RFC 1951, no header), so that a short text is not charged for a frame.
    """
    plain = text.encode("utf-8", "surrogatepass")
    if not plain:
        return float("nan")
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(plain) + packer.flush()
    return len(plain) / len(packed)
