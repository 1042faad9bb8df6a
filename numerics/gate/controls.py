"""Control dictionaries, independent of the concept, whose count of children the gate must beat.

Uniform directions are too weak a control for a trained dictionary: in 640 dimensions a cosine of
0.3 with one has probability 4e-15, so such a control is always beaten. Here rows are drawn that
spread as the fine decoder's own rows spread, or as the residual stream does. Where the rule uses
activations, the fine latents' activations are dealt to other decoder rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.latents.mapping import Indices, inverse_norms
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats, exceedance

ControlKind = Literal["decoder rows", "stream rows", "permuted pairs"]

CONTROL_DRAWS = 99
ROWS_PER_BLOCK = 8_192
FIRST_CHUNK, CHUNK_MAX = 16, 256
DOUBT_NATS = 40.0
"""A bound on a norm is wrong with probability e^-40 at most: never in any number of draws."""
RELATIVE_VARIANCE_MIN = 1e-12
MOMENT_DRAWS, MOMENT_STEPS = 2_048, 30


@dataclass(frozen=True)
class Control:
    """``counts`` [draws]: the largest count of an anchor in each draw; ``observed``: the real one.

    ``decides``: whether the gate must beat it. ``effective_dimensions`` is the participation
    ratio of the law of the rows, (sum v)^2 / sum v^2 over its variances v: the fewer, the more
    often rows are alike by chance. None for a control that draws no rows.
    """

    kind: ControlKind
    observed: int
    counts: Indices
    decides: bool
    effective_dimensions: float | None = None

    @property
    def p(self) -> float:
        """Return (1 + draws with at least as many children) / (1 + draws)."""
        return exceedance(self.counts, self.observed)


def deciding_p(controls: Sequence[Control]) -> float:
    """Return the largest p of the controls that decide; 1 without any: nothing was beaten."""
    return max((control.p for control in controls if control.decides), default=1.0)


@dataclass(frozen=True)
class RowLaw:
    """A normal law of rows: mean [d_in], axes [d_in, rank] (orthonormal), variances falling."""

    mean: Floats
    axes: Floats
    variances: Floats

    @staticmethod
    def of_decoder(
        rows: Float[Tensor, "rows d_in"], on_block: Callable[[int], None] = lambda done: None
    ) -> RowLaw:
        """Return a law whose rows, made unit, have mean and covariance of the decoder's unit rows.

        Rows of norm zero are left out. The axes are those of the covariance. ``on_block`` is
        called with the number of rows that were read, of twice as many as there are.
        """
        return _of_directions(_law(rows, unit=True, on_block=on_block))

    @staticmethod
    def of_stream(rows: Float[Tensor, "rows d_in"]) -> RowLaw:
        """Return the covariance of residual vectors; their mean is what dictionaries subtract."""
        law = _law(rows, unit=False)
        return RowLaw(np.zeros_like(law.mean), law.axes, law.variances)

    @property
    def effective_dimensions(self) -> float:
        """Return the participation ratio of the variances; 0 where nothing varies."""
        squares = float((self.variances**2).sum())
        return float(self.variances.sum()) ** 2 / squares if squares else 0.0


def _law(
    rows: Float[Tensor, "rows d_in"],
    *,
    unit: bool,
    on_block: Callable[[int], None] = lambda done: None,
) -> RowLaw:
    """Pass twice over the rows in blocks, float64 sums: mean, then covariance about it."""
    width, device = rows.shape[1], rows.device
    total = torch.zeros(width, dtype=torch.float64, device=device)
    known_rows = 0.0
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block, known = _directions(rows[start : start + ROWS_PER_BLOCK], unit=unit)
        total += block.sum(dim=0, dtype=torch.float64)
        known_rows += float(known.sum())
        on_block(start + len(block))
    number = max(1.0, known_rows)
    mean = total / number
    squares = torch.zeros(width, width, dtype=torch.float64, device=device)
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block, known = _directions(rows[start : start + ROWS_PER_BLOCK], unit=unit)
        centred = (block - mean.to(rows)) * known[:, None]
        squares += (centred.T @ centred).double()
        on_block(len(rows) + start + len(block))
    variances, axes = np.linalg.eigh(squares.cpu().numpy() / number)
    variances, axes = variances[::-1], axes[:, ::-1]
    kept = variances > RELATIVE_VARIANCE_MIN * max(float(variances[0]), 1e-300)
    return RowLaw(mean.cpu().numpy(), axes[:, kept].copy(), variances[kept].copy())


def _directions(rows: Float[Tensor, "rows d_in"], *, unit: bool) -> tuple[Tensor, Tensor]:
    """Return the rows, of length 1 if ``unit``, and 1 for those that are not zero, else 0."""
    inverse = inverse_norms(rows)
    known = (inverse > 0).to(rows)
    return rows * (inverse if unit else known)[:, None], known


def _of_directions(wanted: RowLaw) -> RowLaw:
    """Return the law whose draws have mean and variances of ``wanted`` once their norm is 1.

    Dividing by the norm takes from what varies most, so a law that already has the moments of
    unit rows would lose some twice: they are solved for over fixed draws. In many dimensions the
    norm hardly varies, and hardly anything changes.
    """
    if not wanted.variances.size:
        return wanted
    z = keyed_generator("row law").standard_normal((MOMENT_DRAWS, len(wanted.variances)))
    target = wanted.mean @ wanted.axes
    rest = wanted.mean - wanted.axes @ target
    mean, variances, length = target.copy(), wanted.variances.copy(), 1.0
    for _ in range(MOMENT_STEPS):
        rows = mean + z * np.sqrt(variances)
        inverse = 1 / np.sqrt((rows**2).sum(axis=1) + length**2 * (rest @ rest)).clip(min=1e-12)
        unit = rows * inverse[:, None]
        mean = mean + target - unit.mean(axis=0)
        length *= 1 / max(1e-12, length * float(inverse.mean()))
        variances = variances * wanted.variances / unit.var(axis=0).clip(min=1e-300)
        scale = np.sqrt((mean**2).sum() + variances.sum() + length**2 * (rest @ rest))
        mean, variances, length = mean / scale, variances / scale**2, length / scale
    return RowLaw(wanted.axes @ mean + length * rest, wanted.axes, variances)


def drawn_row_counts(
    anchors: Float[Tensor, "anchors d_in"],
    allowed: NDArray[np.bool_],
    law: RowLaw,
    cosine_min: float,
    key: tuple[str | int, ...],
    draws: int = CONTROL_DRAWS,
    on_draw: Callable[[int], None] = lambda done: None,
) -> Indices:
    """Return the largest count of children in each of many fine dictionaries drawn from ``law``.

    ``allowed`` [anchors, fine] marks the fine latents that behave like children; each gets a row of
    its own. The counts have exactly the law of rows made in full (up to e^-40 a row), though few
    are: see ``_Norms``.
    """
    known = bool(law.variances.size or law.mean.any())
    if anchors.shape[0] == 0 or not allowed.any() or not known:
        return np.zeros(draws, dtype=np.int64)
    counts = np.zeros((draws, anchors.shape[0]), dtype=np.int64)
    rows = anchors.double().cpu()
    norms = _Norms.of((rows * inverse_norms(rows)[:, None]).numpy(), law)

    def drawn(number: int) -> Indices:
        generator = keyed_generator("control rows", *key, number)
        found = np.zeros(anchors.shape[0], dtype=np.int64)
        for start in range(0, allowed.shape[1], ROWS_PER_BLOCK):
            block = allowed[:, start : start + ROWS_PER_BLOCK]
            found += norms.reaching(generator, block, cosine_min)
        return found

    # each draw has a generator of its own, so that threads change nothing
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        try:
            for number, found in enumerate(pool.map(drawn, range(draws))):
                on_draw(number)
                counts[number] = found
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return np.asarray(counts.max(axis=1), dtype=np.int64)


def permuted_pair_counts(
    aligned: NDArray[np.bool_],
    behaves: NDArray[np.bool_],
    key: tuple[str | int, ...],
    draws: int = CONTROL_DRAWS,
) -> Indices:
    """Return each anchor's children when activations are dealt to other decoders: [draws, anchors].

    Both [anchors, fine]. One permutation of the fine latents serves all anchors of a draw. Every
    cosine stays, so this is a control of what uses activations and of nothing else.
    """
    counts = np.zeros((draws, len(aligned)), dtype=np.int64)
    near = np.flatnonzero(aligned.any(axis=0))  # of a wide dictionary hardly any
    if not near.size:
        return counts
    for number in range(draws):
        order = keyed_generator("permuted pairs", *key, number).permutation(aligned.shape[1])
        counts[number] = (aligned[:, near] & behaves[:, order[near]]).sum(axis=1)
    return counts


@dataclass(frozen=True)
class _Suffix:
    """The coordinates of a row that are not drawn yet, given u: what is known of their norm.

    |mean(u)|^2 = constant + 2 linear.u + u.quadratic.u; the rest adds ``trace`` on average, and
    strays by more than 2 sqrt(V s) (below) or 2 sqrt(V s) + 2 ``largest`` s (above), with V =
    ``squares`` + 2 ``largest`` |mean(u)|^2, with probability e^-s at most (Laurent and Massart
    2000, lemma 1; Birge 2001, lemma 8.1).
    """

    start: int
    inverse: Floats
    root: Floats
    constant: float
    linear: Floats
    quadratic: Floats
    trace: float
    squares: float
    largest: float

    @property
    def squared_norm_min(self) -> float:
        """What the squared norm of these coordinates lies above whatever u is: see ``bounds``.

        |mean(u)|^2 enters as a; a - 2 sqrt(s (squares + 2 largest a)) is convex in a >= 0.
        """
        about = 0.0
        if self.largest:
            about = max(0.0, 2 * self.largest * DOUBT_NATS - self.squares / (2 * self.largest))
        stray = 2 * np.sqrt((self.squares + 2 * self.largest * about) * DOUBT_NATS)
        return max(0.0, float(about + self.trace - stray))

    def bounds(self, u: Floats) -> tuple[Floats, Floats]:
        """Return what the squared norm of these coordinates lies between, each [rows]."""
        about = self.constant + 2 * u @ self.linear + np.einsum("ij,jk,ik->i", u, self.quadratic, u)
        about = np.maximum(about, 0.0)
        stray = 2 * np.sqrt((self.squares + 2 * self.largest * about) * DOUBT_NATS)
        middle = about + self.trace
        return np.maximum(middle - stray, 0.0), middle + stray + 2 * self.largest * DOUBT_NATS


@dataclass(frozen=True)
class _Norms:
    """Draws rows x = mean + axes sqrt(v) z as far as it takes to know cos(anchor, x) >= cut.

    The products with the anchors need few numbers: they are y = offset + u @ mixing with u =
    z @ shares, a normal vector of as many entries as there are anchors. The norm needs all of z.
    Its coordinates are drawn given u in chunks, those of largest variance first, and a row is done
    with as soon as bounds on the rest of its norm leave no doubt. Nearly all rows are far from
    every anchor and are done with before the first chunk.
    """

    offset: Floats
    mixing: Floats
    shares: Floats
    mean: Floats
    scale: Floats
    outside: float
    suffixes: tuple[_Suffix, ...]

    @staticmethod
    def of(unit: Floats, law: RowLaw) -> _Norms:
        """Prepare draws for the unit rows [anchors, d_in]."""
        scale = np.sqrt(law.variances)
        products = (unit @ law.axes) * scale  # [anchors, rank]
        left, size, right = np.linalg.svd(products, full_matrices=False)
        kept = size > 1e-10 * max(1e-300, float(size.max(initial=0.0)))
        shares = right[kept].T
        mean = law.mean @ law.axes
        suffixes = tuple(_suffix(start, shares, mean, scale) for start in _starts(len(scale)))
        outside = max(0.0, float(law.mean @ law.mean - mean @ mean))
        mixing = (left[:, kept] * size[kept]).T
        return _Norms(unit @ law.mean, mixing, shares, mean, scale, outside, suffixes)

    def reaching(
        self, generator: np.random.Generator, allowed: NDArray[np.bool_], cut: float
    ) -> Indices:
        """Draw one row for each of ``allowed`` [anchors, rows]; return how many reach each anchor.

        Rows that are far from every anchor they are allowed, whatever their norms, are done with
        after one product: its long axis comes last, where comparing is quick.
        """
        u = generator.standard_normal((allowed.shape[1], self.shares.shape[1]))
        y = self.offset[:, None] + self.mixing.T @ u.T
        least = -np.inf if cut <= 0 else cut * np.sqrt(self._squared_norm_min)
        found = np.zeros(len(allowed), dtype=np.int64)
        open_rows = np.flatnonzero(((y >= least) & allowed).any(axis=0))
        allowed, y, u = allowed[:, open_rows].T, y[:, open_rows].T, u[open_rows]
        squared = np.full(len(open_rows), self.outside)
        for place, suffix in enumerate(self.suffixes):
            if not len(u):
                break
            low, high = suffix.bounds(u)
            surely, doubtful = _compared(y, squared + low, squared + high, cut)
            undecided = (doubtful & allowed).any(axis=1)
            found += (surely & allowed)[~undecided].sum(axis=0)
            if place + 1 == len(self.suffixes):
                break
            allowed, y, u = allowed[undecided], y[undecided], u[undecided]
            part, u = self._chunk(generator, u, suffix, self.suffixes[place + 1])
            squared = squared[undecided] + part
        return found

    @property
    def _squared_norm_min(self) -> float:
        return self.outside + self.suffixes[0].squared_norm_min

    def _chunk(
        self, generator: np.random.Generator, u: Floats, here: _Suffix, rest: _Suffix
    ) -> tuple[Floats, Floats]:
        """Draw the next coordinates given u; return their squared norm and what is left of u.

        A free draw is corrected to agree with u (Doucet 2010): the coordinates behind the chunk
        enter as one normal vector with their covariance shares' shares.
        """
        span = slice(here.start, rest.start)
        shares = self.shares[span]
        free = generator.standard_normal((len(u), len(shares)))
        later = generator.standard_normal((len(u), len(rest.root))) @ rest.root
        missing = (u - free @ shares - later) @ here.inverse
        z = free + missing @ shares.T
        part = ((self.mean[span] + z * self.scale[span]) ** 2).sum(axis=1)
        return part, u - z @ shares


def _starts(rank: int) -> Iterator[int]:
    """Yield where chunks start, the end last: short ones first, since they often suffice."""
    start, width = 0, FIRST_CHUNK
    while start < rank:
        yield start
        start, width = start + width, min(2 * width, CHUNK_MAX)
    yield rank


def _suffix(start: int, shares: Floats, mean: Floats, scale: Floats) -> _Suffix:
    part, about, spread = shares[start:], mean[start:], scale[start:]
    inverse = np.asarray(
        np.linalg.pinv(part.T @ part, rcond=1e-10, hermitian=True), dtype=np.float64
    )
    along = (part * spread[:, None]) @ inverse  # mean of the coordinates: about + along @ u
    weighted = inverse @ (part.T @ (part * spread[:, None] ** 2))
    twice = inverse @ (part.T @ (part * spread[:, None] ** 4))
    squares = (spread**4).sum() - 2 * np.trace(twice) + np.trace(weighted @ weighted)
    return _Suffix(
        start=start,
        inverse=inverse,
        root=np.asarray(np.linalg.qr(part, mode="r"), dtype=np.float64),
        constant=float(about @ about),
        linear=about @ along,
        quadratic=along.T @ along,
        trace=max(0.0, float((spread**2).sum() - np.trace(weighted))),
        squares=max(0.0, float(squares)),
        largest=float(spread[0] ** 2) if len(spread) else 0.0,
    )


def _compared(
    y: Floats, low: Floats, high: Floats, cut: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where y >= cut * norm surely holds, and where it may or may not."""
    below, above = cut * np.sqrt(low)[:, None], cut * np.sqrt(high)[:, None]
    surely = y >= np.maximum(below, above)
    return surely, ~surely & (y >= np.minimum(below, above))
