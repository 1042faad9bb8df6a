"""Logits a block of the vocabulary at a time: what a rule needs is taken while a block is in cache.

Rows × vocabulary would be written to memory and read again, which costs as much as the choice of
a token; here a block is gone before the next one is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite, first_not_finite
from loopscope.numerics.model.causal_model import OutputHead
from loopscope.numerics.model.packing import Packed

TOKENS_PER_BLOCK = ((48, 4_096), (96, 2_048), (384, 1_024))
"""(most rows, tokens of a block): buffer and weights stay in a cache of 1 MiB a core. Constants by
shape: a worker that measured for itself would write other last digits than its neighbour."""
TOKENS_PER_BLOCK_AVX2 = ((48, 16_384), (96, 8_192), (384, 4_096))
"""The same where AVX2 is the widest: its kernel for packed states is faster over long blocks."""
TOKENS_PER_BLOCK_MIN = 512
ROUGH_TOKENS_PER_BLOCK = 4_096
"""The same in bfloat16, where a block of 1,024 spends more on the many small steps around it."""
TOKENS_ROUNDED_TOGETHER = 256
"""A head is rounded in parts that stay in cache, a multiple of ``GROUP``."""
GROUP = 32
"""Tokens that are looked at one by one only where the largest of them counts."""


def tokens_per_block(rows: int) -> int:
    """Return how many tokens' logits are computed at a time for so many rows."""
    avx2 = torch.backends.cpu.get_cpu_capability() == "AVX2"
    sizes = TOKENS_PER_BLOCK_AVX2 if avx2 else TOKENS_PER_BLOCK
    return next((size for most, size in sizes if rows <= most), TOKENS_PER_BLOCK_MIN)


def blocks(
    head: OutputHead, hidden: Float[Tensor, "rows d_model"]
) -> Iterator[tuple[int, Float[Tensor, "tokens rows"]]]:
    """Yield ``(first token, logits)`` over the vocabulary. The caller may change a block.

    On a CPU in float32 a block is W hᵀ, the states packed once for all blocks: with AVX-512 1.0 of
    the rate of a large product at 80 rows, 0.55 at 20, against 0.83 and 0.39 unpacked; with AVX2
    0.94 at 80, 0.58 at 20, against 0.77 and 0.34. Other devices and dtypes take the plain way.
    """
    if hidden.device.type != "cpu" or hidden.dtype != torch.float32:
        for start, part in head.chunks(hidden):
            yield start, part.T
        return
    size = tokens_per_block(len(hidden))
    states = Packed(hidden, size)
    for start in range(0, head.vocabulary, size):
        yield start, head.finish(states.product(head.weight[start : start + size]), start)


@dataclass(frozen=True)
class Rough:
    """An output head in bfloat16, and how far its products may be from those in float32.

    For token t and state h, with w̃ and h̃ rounded to bfloat16 and z̃ the rounded product,
    |w·h − z̃| ≤ ‖w‖ ‖h − h̃‖ + ‖w − w̃‖ ‖h̃‖ + 2 d 2⁻²³ ‖w‖ ‖h‖ + |z̃| u / (1 − u), by Cauchy and
    Schwarz, with the sums of both products and the rounding of the last. ``norms`` and
    ``error_norms`` are the largest ‖w‖ and ‖w − w̃‖ of each group of ``GROUP`` tokens.
    """

    weight: Float[Tensor, "vocabulary d_model"]
    norms: Float[Tensor, " groups"]
    error_norms: Float[Tensor, " groups"]

    @staticmethod
    def of(weight: Float[Tensor, "vocabulary d_model"]) -> Rough:
        """Round a head's weights; they take half of their memory once more."""
        rounded = torch.empty(weight.shape, dtype=torch.bfloat16)
        norms, errors = [], []
        for start in range(0, len(weight), TOKENS_ROUNDED_TOGETHER):
            part = weight[start : start + TOKENS_ROUNDED_TOGETHER]
            half = rounded[start : start + len(part)].copy_(part)
            norms.append(_group_peaks(part.norm(dim=1)))
            errors.append(_group_peaks(half.float().sub_(part).norm(dim=1)))
        return Rough(rounded, torch.cat(norms), torch.cat(errors))

    def slack(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "groups rows"]:
        """Return the first three terms of the bound, for each group and row."""
        rounded = hidden.bfloat16().float()
        sums = 2 * hidden.shape[1] * 2.0**-23
        of_row = (hidden - rounded).norm(dim=1) + sums * hidden.norm(dim=1)
        slack = torch.outer(self.norms, of_row)
        return slack.addr_(self.error_norms, rounded.norm(dim=1)).mul_(1 + 1e-5)


ROUNDING = 2.0**-8 / (1 - 2.0**-8)
"""The unit roundoff u of bfloat16 over 1 - u."""


def _group_peaks(values: Float[Tensor, " tokens"]) -> Float[Tensor, " groups"]:
    whole = -len(values) % GROUP
    return torch.nn.functional.pad(values, (0, whole)).view(-1, GROUP).amax(dim=1)


@dataclass
class _Candidates:
    """The tokens that may be among the ``k`` largest of their row, gathered block by block.

    ``floor`` is the k-th largest of what the groups so far hold at least: no token below it is
    among the k largest. A token of which at most so much is known is kept with what it is at most.
    """

    k: int
    least: list[Tensor] = field(default_factory=list)
    kept: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    floor: Tensor | None = None
    _groups: int = 0
    _due: int = 0

    def add(
        self,
        start: int,
        logits: Float[Tensor, "tokens rows"],
        slack: Float[Tensor, "groups rows"] | None = None,
    ) -> None:
        """Take in a block, rough by ``slack`` and ``ROUNDING`` where a slack is given."""
        groups = _grouped(logits)
        peaks = groups.amax(dim=1).float()
        most, least = peaks, peaks
        if slack is not None:
            off = peaks.abs().mul_(ROUNDING).add_(slack)
            most, least = peaks + off, peaks - off
        self.least.append(least)
        self._groups += len(peaks)
        if self._groups >= max(self.k, self._due):
            self._raise_floor()
            self._due = 2 * self._groups
        hit = torch.ones_like(most, dtype=torch.bool) if self.floor is None else most >= self.floor
        group, row = hit.nonzero(as_tuple=True)
        values = groups[group, :, row].float()
        if slack is not None:
            values = values + values.abs() * ROUNDING + slack[group, row][:, None]
        self.kept.append((row, start + group * GROUP, values))

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return row, token and value of each candidate, ordered by row, then token.

        Raises NotFinite with the row of a logit that is NaN or infinite.
        """
        self._raise_floor()
        assert self.floor is not None
        row, first, values = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        pair, within = (values >= self.floor[row][:, None]).nonzero(as_tuple=True)
        row, token, values = row[pair], first[pair] + within, values[pair, within]
        order = row.argsort(stable=True)
        return row[order], token[order], values[order]

    def _raise_floor(self) -> None:
        least = torch.cat(self.least)
        self.least = [least]
        broken = first_not_finite(least.amax(dim=0)[:, None])  # NaN is the largest of all
        if broken is not None:
            raise NotFinite("the logits are NaN or infinite", broken)
        if len(least) < self.k:
            self.floor = least.new_full((least.shape[1],), -torch.inf)
        else:
            self.floor = torch.topk(least, self.k, dim=0).values[-1]


def _grouped(logits: Float[Tensor, "tokens rows"]) -> Float[Tensor, "groups GROUP rows"]:
    tokens, rows = logits.shape
    if tokens % GROUP:
        whole = logits.new_full((tokens + -tokens % GROUP, rows), -torch.inf)
        whole[:tokens] = logits
        logits = whole
    return logits.view(-1, GROUP, rows)


@dataclass(frozen=True)
class LargestLogits:
    """The largest logits of a head; with ``rough`` it is read in bfloat16 first.

    What bfloat16 cannot tell apart is computed anew in float32, so the answer is the same up to the
    last digits of single logits, at two fifths of the time where a processor multiplies bfloat16.
    """

    head: OutputHead
    rough: Rough | None = None

    @staticmethod
    def of(head: OutputHead) -> LargestLogits:
        """Return the way that suits processor, dtype and size."""
        weight = head.weight
        plain = weight.device.type != "cpu" or weight.dtype != torch.float32
        ordered = head.bias is None and head.scale > 0  # as W h is, so are the logits
        if plain or not ordered or head.vocabulary < VOCABULARY_MIN or not _multiplies_bfloat16():
            return LargestLogits(head)
        return LargestLogits(head, Rough.of(weight))

    @torch.no_grad()
    def __call__(
        self, hidden: Float[Tensor, "rows d_model"], k: int
    ) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
        """Return each row's ``k`` largest logits (all if there are fewer) and their tokens.

        Falling, equal logits by token. Raises NotFinite with the row.
        """
        found = _Candidates(min(k, self.head.vocabulary))
        if self.rough is None:
            for start, logits in blocks(self.head, hidden):
                found.add(start, logits)
            row, token, values = found.found()
        else:
            self._roughly(self.rough, hidden, found)
            row, token, _ = found.found()
            values = self._exactly(hidden, row, token)
        return _largest_of(row, token, values, len(hidden), found.k)

    def _roughly(self, rough: Rough, hidden: Tensor, found: _Candidates) -> None:
        slack, columns = rough.slack(hidden), hidden.bfloat16().T
        for start in range(0, self.head.vocabulary, ROUGH_TOKENS_PER_BLOCK):
            products = rough.weight[start : start + ROUGH_TOKENS_PER_BLOCK] @ columns
            first, last = start // GROUP, -(-(start + len(products)) // GROUP)
            found.add(start, products, slack[first:last])

    def _exactly(self, hidden: Tensor, row: Tensor, token: Tensor) -> Tensor:
        values = torch.empty(len(row))
        for start in range(0, len(row), CANDIDATES_PER_PASS):
            part = slice(start, start + CANDIDATES_PER_PASS)
            products = (self.head.weight[token[part]] * hidden[row[part]]).sum(dim=1)
            values[part] = products
        if self.head.scale != 1.0:
            values *= self.head.scale
        if self.head.softcap is not None:
            values = torch.tanh(values / self.head.softcap) * self.head.softcap
        return values


VOCABULARY_MIN = 16_384
"""A smaller head is read in float32 at once."""
KEPT_MAX = 1_024
"""Where a rule keeps more, whole logits are no more work."""
CANDIDATES_PER_PASS = 1_024


def _multiplies_bfloat16() -> bool:
    """Whether torch uses such instructions here; without them bfloat16 is the slower one."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    able = any(bool(getattr(torch.cpu, name, bool)()) for name in asked)
    return able and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _largest_of(
    row: Tensor, token: Tensor, values: Tensor, rows: int, k: int
) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest of each row of candidates that are ordered by row, then token."""
    counts = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    width = int(counts.max())
    table = values.new_full((rows, width), -torch.inf)
    tokens = token.new_zeros((rows, width))
    table[row, place], tokens[row, place] = values, token
    order = table.argsort(dim=1, descending=True, stable=True)[:, :k]
    return table.gather(1, order), tokens.gather(1, order)
