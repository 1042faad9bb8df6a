"""Work of the stages from shapes alone: multiplications, bytes moved and kept, memory.

What is counted are the products that a stage must do, at the share of a plain product's rate that
``benchmarks/roofline.py`` found for them, and what it holds at once. Left out are converting and
loading what is new to a machine, and everything that no shape decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from loopscope.state.machine_rates import MachineRates

FLOAT_BYTES = 4
MEBIBYTE = 2**20
CHARACTERS_PER_TOKEN = 4.8
"""Of English in the vocabulary of Gemma 3: 4.78 in the packaged calibration text, 4.9 to 5.0 in
the prompts of the examples."""
ACTIVE_LATENTS = 100
"""Active latents of a row where the dictionary does not say: 32 to 124 in those that were used."""
BRACKET_PASSES, BRACKET_TEXTS, PASSES_OVER_ALL = 3, 4, 2
"""Passes until budgets are met: some over a few neutral texts, then some over all of them."""
PAIRS_PER_LATENT = 30
"""Fine latents from cosine 0.2 on, of a coarse one: 28 in the example's dictionaries."""

_TOKENS_AT_ONCE = 512
"""Tokens of a batch of a capture."""
_BLOCK_BYTES = 128 * MEBIBYTE
_LATENTS_PER_BLOCK = 16_384
_SHARD_MULTIPLICATIONS = 10**11
_COSINES_BYTES = 32 * MEBIBYTE
_ROWS_AT_ONCE = 256
_CONTROL_DRAWS, _ANCHORS = 99, 5
_BYTES_PER_DRAW = 500
"""What a copy moves in the time of one normal number and its share of a product."""


@dataclass(frozen=True)
class ModelShape:
    """A model: the weights in the matrices of one block, and the width and words of its head."""

    d_model: int
    n_layers: int
    block_weights: int
    vocabulary: int

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.d_model * self.vocabulary

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with from the first block to its logits."""
        return self.n_layers * self.block_weights + self.head


@dataclass(frozen=True)
class DictionaryShape:
    """A dictionary: the width of its rows, its latents, and how many are active in a row."""

    width: int
    latents: int
    active: int = ACTIVE_LATENTS

    @property
    def encoder_bytes(self) -> float:
        """Bytes of the encoder."""
        return FLOAT_BYTES * self.width * self.latents


@dataclass(frozen=True)
class Work:
    """What a stage takes.

    ``flops`` at a ``share`` of a plain product's rate or ``moved`` bytes, whichever is longer, and
    ``fixed`` seconds; ``disk`` bytes of artifact and ``anonymous`` bytes of memory of its own,
    above a model and mapped files.
    """

    flops: float = 0.0
    share: float = 1.0
    moved: float = 0.0
    fixed: float = 0.0
    disk: float = 0.0
    anonymous: float = 0.0

    def seconds(self, rates: MachineRates) -> float:
        """Return how long a machine of these rates takes."""
        products = self.flops / (self.share * rates.flops)
        return self.fixed + max(products, self.moved / rates.bandwidth)


@dataclass(frozen=True)
class Texts:
    """How many texts, and their tokens."""

    count: int
    tokens: float


def capture_work(
    model: ModelShape, blocks: int, prompts: Texts, kept: float, text: Texts, places: int = 1
) -> Work:
    """Return the work of a capture behind ``blocks`` blocks that keeps ``kept`` of the rows.

    Each text has one BOS more. ``places`` are the hooks that are captured, one pass each.
    """
    rows = prompts.tokens + text.tokens
    passed = rows + prompts.count + text.count
    row_bytes = FLOAT_BYTES * model.d_model
    return Work(
        flops=places * 2.0 * passed * blocks * model.block_weights,
        share=0.88,
        fixed=9.0,  # libraries, tokenizer and model: loading in docs/performance.md
        disk=places * row_bytes * (kept + text.tokens) + 40 * prompts.count + 4_000,
        anonymous=2 * row_bytes * rows + 16 * row_bytes * _TOKENS_AT_ONCE + 200 * MEBIBYTE,
    )


def decomposition_work(
    dictionary: DictionaryShape, prompts: Texts, kept: float, text: float
) -> Work:
    """Return the work of encoding ``kept`` rows of prompts and ``text`` of calibration text."""
    rows, products = kept + text, dictionary.width * dictionary.latents
    rows_at_once = min(rows, max(32.0, min(8192.0, _SHARD_MULTIPLICATIONS // products)))
    block = FLOAT_BYTES * rows_at_once * min(dictionary.latents, _LATENTS_PER_BLOCK)
    stored = 8 * dictionary.active
    return Work(
        flops=2.0 * rows * products,
        share=0.73,
        moved=(rows / rows_at_once + 1) * dictionary.encoder_bytes,
        fixed=0.2,
        disk=24 * dictionary.latents + stored * prompts.count + 40 * prompts.count + 3_000,
        anonymous=2 * min(_BLOCK_BYTES, block)
        + 2 * FLOAT_BYTES * rows * dictionary.width
        + 2 * stored * rows
        + 200 * dictionary.latents,
    )


def geometry_work(coarse: DictionaryShape, fine: DictionaryShape) -> Work:
    """Return the work of comparing two decoders.

    All cosines between them, those within the coarse one, and the law of the fine rows, a matrix
    of their width.
    """
    width = fine.width
    cosines = coarse.latents * (coarse.latents + fine.latents)
    square = 8.0 * width * width
    return Work(
        flops=2.0 * width * (cosines + fine.latents * width),
        share=0.8,
        moved=(coarse.latents / 2_048 + 3) * fine.encoder_bytes,
        disk=square + coarse.latents * (400 + 16 * PAIRS_PER_LATENT) + 4 * fine.latents,
        anonymous=3 * square + 3 * _COSINES_BYTES + _BLOCK_BYTES + 12 * fine.latents,
    )


def mapping_work(coarse: DictionaryShape, fine: DictionaryShape, prompts: int) -> Work:
    """Return the work of a mapping, without what the first of a capture's does for all.

    It draws a row for each fine latent and anchor in some hundred control dictionaries of two laws,
    reads the fine decoder some times, and selects again on a hundred halves of the prompts.
    """
    drawn = 2.0 * _CONTROL_DRAWS * _ANCHORS * fine.latents
    return Work(
        moved=_BYTES_PER_DRAW * drawn + 8 * fine.encoder_bytes,
        fixed=0.8 + 2e-4 * coarse.latents,
        disk=40_000,
        anonymous=2 * _BLOCK_BYTES + 4.0 * prompts * _LATENTS_PER_BLOCK + 300 * fine.latents,
    )


def splitting_work(
    coarse: DictionaryShape, fine: DictionaryShape, prompts: int, rounds: int
) -> Work:
    """Return the work of a splitting graph of some hundred pairs.

    ``rounds`` are the draws, each of which deals the fine latents anew, and the halves of the
    prompts. Measured at 200 to 1,000 prompts and 1,024 to 262,144 latents.
    """
    entries = 16.0 * prompts * (coarse.active + fine.active)
    dealt = 2e-8 * fine.latents
    return Work(
        fixed=0.5 + rounds * (1.5e-3 + 2.5e-6 * prompts + dealt),
        disk=40_000,
        anonymous=2 * entries + 64.0 * (coarse.latents + fine.latents),
    )


@dataclass(frozen=True)
class Steered:
    """The texts of a steering: ``cells`` arms and strengths, of them ``searched`` for a budget."""

    cells: int
    searched: int
    openings: Texts
    samples: int
    new_tokens: int
    neutral: Texts
    blocks_above: int
    probe_products: float
    """Tokens of the prompts that the probe is fitted to, times the blocks that they pass."""


def steering_work(model: ModelShape, steered: Steered) -> Work:
    """Return the work of a steering: budgets, texts, reading them again, probe, distributions."""
    texts = steered.cells * steered.openings.count * steered.samples
    written = float(texts * steered.new_tokens)
    openings = steered.cells * steered.openings.tokens
    above = steered.blocks_above * model.block_weights + model.head
    read = written + openings * steered.samples
    share = min(1.0, BRACKET_TEXTS / max(1, steered.neutral.count))
    searched = steered.searched * (PASSES_OVER_ALL + BRACKET_PASSES * share)
    products = (
        searched * steered.neutral.tokens * above
        + (written + read + openings) * model.weights
        + steered.probe_products * model.block_weights
    )
    logits = FLOAT_BYTES * _ROWS_AT_ONCE * model.vocabulary
    return Work(
        flops=2.0 * products,
        share=0.7,
        fixed=5.0,
        disk=texts * (6.0 * steered.new_tokens + 250) + 60_000,
        anonymous=2 * model.head + 2 * logits + 200 * MEBIBYTE,
    )
