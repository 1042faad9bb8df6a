"""Rows of a normal law that may come near an anchor, drawn only as far as it takes to know.

A control dictionary has as many rows as the fine one, and nearly all of them are far from every
anchor. How many these are follows from a binomial law; of the others the norm is drawn in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri

from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.mapping import Indices
from loopscope.numerics.statistics.multiple_tests import Floats

FIRST_CHUNK, CHUNK_MAX = 16, 256
DOUBT_NATS = 40.0
"""A bound on a norm is wrong with probability e^-40 at most: never in any number of draws."""


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
class NearRows:
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
    def of(unit: Floats, law: RowLaw) -> NearRows:
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
        return NearRows(unit @ law.mean, mixing, shares, mean, scale, outside, suffixes)

    def reaching(
        self, generator: np.random.Generator, allowed: NDArray[np.bool_], cut: float
    ) -> Indices:
        """Draw one row for each of ``allowed`` [anchors, rows]; return how many reach each anchor.

        A row whose product with an anchor is small is far from it, whatever its norm, and with a
        short u every product is small: rows with such a u are counted and never drawn.
        """
        least = -np.inf if cut <= 0 else cut * np.sqrt(self._squared_norm_min)
        places, u = long_normals(generator, allowed.shape[1], len(self.mixing), self._reach(least))
        allowed = allowed[:, places]
        y = self.offset[:, None] + self.mixing.T @ u.T
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

    def _reach(self, least: float) -> float:
        """Return the length that u must have for any product to reach ``least``."""
        missing, steps = least - self.offset, np.linalg.norm(self.mixing, axis=0)
        needed = np.divide(missing, steps, out=np.full(len(steps), np.inf), where=steps > 0)
        return float(np.where(missing <= 0, 0.0, needed).min())

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


def long_normals(
    generator: np.random.Generator, rows: int, width: int, length: float
) -> tuple[Indices, Floats]:
    """Draw standard normal vectors, and return those that are at least ``length`` long.

    Returned are their places among the ``rows``, and the vectors [found, width]. How many there are
    is binomial, their squared lengths have the tail of a chi-squared law, and their directions are
    uniform and independent of both: the others need not be drawn.
    """
    chance = 1.0 if length <= 0 else float(chdtrc(width, length**2)) if width else 0.0
    found = int(generator.binomial(rows, chance))
    places = generator.choice(rows, found, replace=False, shuffle=False)
    vectors = generator.standard_normal((found, width))
    if length > 0:
        squares = chdtri(width, chance * (1 - generator.random(found)))
        vectors *= np.sqrt(squares / np.square(vectors).sum(axis=1))[:, None]
    return places, vectors


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
