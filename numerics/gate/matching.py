"""Matched anchors: latents as frequent in text, as long and as crowded as a candidate.

A concept's latents fire on half of a prompt set that is half about the concept, and seldom in
text. What fires on half of *any* prompts is another kind of latent, with more children or with
fewer. So rates are those over calibration text, and never those over the prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.gate import NULL_ANCHORS_MIN
from loopscope.numerics.latents.mapping import COSINE_BYTES_MAX, Indices, inverse_norms
from loopscope.numerics.latents.splits import DiscoverRows, require_discover
from loopscope.numerics.statistics.keyed import keyed_generator
from loopscope.numerics.statistics.multiple_tests import Floats, exceedance

NEIGHBOURS = 10
SPREAD_MIN = 1e-3
"""A covariate that varies less, in units of 1 or of its mean, is constant but for rounding: unit
rows that were stored in half precision have norms of 1 with a standard deviation of 3e-5."""


@dataclass(frozen=True)
class Covariates:
    """What the number of children may depend on beside the concept, float64 [coarse] each.

    ``text_rate`` is the share of the tokens of calibration text on which the latent fires (NaN
    where none was measured), ``norm`` that of its decoder row, ``density`` how crowded the coarse
    decoder is around it (``crowding``). ``living`` marks those that fire on a prompt or in text.
    """

    text_rate: Floats
    norm: Floats
    density: Floats
    living: NDArray[np.bool_]

    @staticmethod
    def of(
        decoder: Float[Tensor, "coarse d_in"], text_rate: Floats, rows: DiscoverRows
    ) -> Covariates:
        """Return the covariates of a decoder; ``rows`` only determine which latents live."""
        norm = torch.linalg.vector_norm(decoder, dim=1).double().cpu().numpy()
        return Covariates.given(norm, crowding(decoder), text_rate, rows)

    @staticmethod
    def given(norm: Floats, density: Floats, text_rate: Floats, rows: DiscoverRows) -> Covariates:
        """Return the same where norms and crowding of the decoder are known."""
        require_discover(rows)
        entries = rows.activations.indices[rows.activations.data > 0]
        fires = np.bincount(entries, minlength=len(text_rate)) > 0
        return Covariates(text_rate, norm, density, fires | (text_rate > 0))

    @property
    def measured(self) -> bool:
        """Whether the rates over text are known."""
        return bool(np.isfinite(self.text_rate).all())

    def uncertainty(self) -> Floats:
        """Return the variance of each log rate, 1 / (tokens on which the latent fired).

        Rates are counts over one number of tokens, so the smallest step between two is one token.
        """
        steps = np.diff(np.unique(np.append(self.text_rate, 0.0)))
        return np.asarray(1.0 / np.maximum(self.text_rate / steps.min(initial=1.0), 1.0))

    @property
    def log_rate(self) -> Floats:
        """Return the logarithms of the rates; a rate of 0 stands at half the smallest other one."""
        seen = self.text_rate[self.text_rate > 0]
        return np.asarray(np.log(np.maximum(self.text_rate, seen.min() / 2 if seen.size else 1.0)))

    def standardised(self) -> Floats:
        """Return [coarse, covariates]: log rate, norm and density, in sd of the living.

        What does not vary is left out; the rate, where it does, comes first.
        """
        found = []
        for column in (self.log_rate, self.norm, self.density):
            living = column[self.living]
            if _varies(living):
                found.append((column - living.mean()) / living.std())
        return np.stack(found, axis=1) if found else np.zeros((len(self.norm), 0))


def _varies(values: Floats) -> bool:
    return bool(values.size and values.std() > SPREAD_MIN * max(1.0, abs(values.mean())))


def crowding(
    decoder: Float[Tensor, "coarse d_in"],
    bytes_max: int = COSINE_BYTES_MAX,
    on_block: Callable[[int], None] = lambda done: None,
) -> Floats:
    """Return each row's mean cosine to its ten nearest other rows, float64 [coarse].

    The density of a decoder around a latent, as the nearest neighbours see it (Loftsgaarden and
    Quesenberry 1965). It is that of the *coarse* rows: crowded directions have more fine rows
    above any cut-off, and the density of the fine rows would be the very count that is asked
    about. Computed in float32 and in blocks of rows; 0 for a zero row, and without other rows.
    ``on_block`` is called with the number of rows that are done.
    """
    latents = len(decoder)
    nearest = min(NEIGHBOURS, latents - 1)
    if nearest < 1:
        return np.zeros(latents)
    scale = inverse_norms(decoder)
    step = max(1, bytes_max // (4 * latents))
    found = []
    for start in range(0, latents, step):
        span = slice(start, start + step)
        cosines = ((decoder[span] * scale[span, None]) @ decoder.T).mul_(scale)
        own = torch.arange(len(cosines), device=cosines.device)
        cosines[own, own + start] = -torch.inf
        found.append(cosines.topk(nearest, dim=1).values.mean(dim=1).double().cpu().numpy())
        on_block(start + len(cosines))
    return np.concatenate(found)


@dataclass(frozen=True)
class Comparison:
    """Children of every coarse latent, ready to be ranked among latents of the same kind.

    ``children`` [coarse] are the counts, ``expected`` those that a latent's covariates lead one
    to expect, ``excess`` what is left of log(1 + children); all but the counts are None where no
    rates over text are known. ``coordinates`` [coarse, covariates] define which latents are near.
    ``doubt`` is how far an error of a latent's rate reaches into its excess: see ``allowance``.
    """

    children: Indices
    covariates: Covariates
    coordinates: Floats | None
    expected: Floats | None
    excess: Floats | None
    doubt: Floats | None

    @staticmethod
    def of(children: Indices, covariates: Covariates) -> Comparison:
        """Fit log(1 + children) by the covariates and their squares over all living latents.

        Latents that are matched only nearly still differ a little in rate, and at the end of the
        scale all in one direction: so the ranks are those of the residuals of a least-squares fit
        (covariance adjustment in matched sets, Rosenbaum 2002). The candidates are in the fit,
        which takes a little from what they have more, and never adds.
        """
        if not covariates.measured:
            return Comparison(children, covariates, None, None, None, None)
        near, living = covariates.standardised(), covariates.living
        design = np.concatenate([np.ones((len(near), 1)), near, near**2], axis=1)
        logarithm = np.log1p(children)
        weights = np.linalg.lstsq(design[living], logarithm[living], rcond=None)[0]
        fitted = design @ weights
        doubt = np.zeros(len(near))
        if _varies(covariates.log_rate[living]):
            slope = weights[1] + 2 * weights[1 + near.shape[1]] * near[:, 0]
            share = covariates.uncertainty() / covariates.log_rate[living].var()
            doubt = slope * np.minimum(share, 1.0)
        excess = np.round(logarithm - fitted, 9)
        return Comparison(children, covariates, near, np.expm1(fitted), excess, doubt)

    def allowance(self, candidates: Indices) -> Floats:
        """Return what rates that rest on few tokens may add to each candidate's excess, from 0 on.

        The fit expects of a latent what latents of its *measured* rate have, and these are on the
        average nearer to the mean of all than they read, by the share of its error in the
        variance (Tweedie's formula, Efron 2011). A candidate comes from a kind of its own, which
        may be rarer, and is drawn to the mean of *that*, by about the same share. What differs is
        the distance between the two means, and the mean of the candidates' measured rates stands
        for theirs: one candidate alone is taken at its word. It counts where it speaks for them.
        """
        if self.coordinates is None or self.doubt is None or not self.doubt.any():
            return np.zeros(candidates.size)
        return np.asarray(
            np.maximum(0.0, self.doubt[candidates] * self.coordinates[candidates, 0].mean())
        )


@dataclass(frozen=True)
class MatchedNull:
    """Latents that are not candidates and resemble them, and how both rank together.

    ``anchors`` [candidates, draws] are the latents. ``ranks`` [candidates] places each candidate
    among itself and its anchors by mid-ranks, from 0 to 100, ``mean_rank`` is their mean.
    ``mean_ranks`` [draws] is the same with the anchors of a draw in the candidates' places,
    ``best`` [draws] the largest number of children of a draw. ``eligible`` counts the latents to
    choose from; ``differences`` is the mean distance between candidates and their anchors in each
    covariate's own unit. Without draws all of these are NaN, or empty.
    """

    anchors: Indices
    ranks: Floats
    mean_rank: float
    mean_ranks: Floats
    best: Indices
    eligible: int
    differences: dict[str, float]

    @property
    def draws(self) -> int:
        """How many sets of matched anchors there are, each anchor of a candidate in one of them."""
        return len(self.best)

    @property
    def percentile(self) -> float:
        """Return 100 (1 - p) of the mean rank: ties count against the candidates."""
        return self._percentile(self.mean_ranks, self.mean_rank)

    def percentile_of_best(self, observed: int) -> float:
        """Return the same of the largest number of children, which decides nothing."""
        return self._percentile(self.best, observed)

    def _percentile(self, draws: NDArray[np.number], observed: float) -> float:
        return 100 * (1 - exceedance(draws, observed)) if self.draws else float("nan")


def matched_null(
    comparison: Comparison, candidates: Indices, draws_max: int, seed: int
) -> MatchedNull:
    """Draw sets of anchors, one for each candidate, and rank the candidates among them.

    A candidate's anchors are the ``draws_max`` living latents that are not candidates and come
    nearest to it in rate over text, norm and density, but no more than the nearest tenth of these
    where that leaves a hundred: the whole of a small dictionary would match nothing. Each is used
    once, in an order of its own, so that under the null the candidates are one set among equals.
    Nothing is drawn without candidates, or if no rates over text are known.
    """
    anchors, eligible = matched_anchors(comparison, candidates, draws_max, seed)
    return ranked(comparison, candidates, anchors, eligible)


def matched_anchors(
    comparison: Comparison, candidates: Indices, draws_max: int, seed: int
) -> tuple[Indices, int]:
    """Return the anchors of each candidate, [candidates, draws], and from how many they were drawn.

    They depend on what the latents are matched by, and on no count of children.
    """
    may_be_drawn = comparison.covariates.living.copy()
    may_be_drawn[candidates] = False
    eligible = np.flatnonzero(may_be_drawn)
    near = comparison.coordinates
    nearest = max(NULL_ANCHORS_MIN, eligible.size // 10)
    draws = min(draws_max, nearest, eligible.size) if candidates.size and near is not None else 0
    anchors = np.empty((candidates.size, draws), dtype=np.int64)
    if near is None or not draws:
        return anchors, int(eligible.size)
    for place, latent in enumerate(candidates):
        generator = keyed_generator("gate null", seed, int(latent))
        shuffled = generator.permutation(eligible)
        distance = squared_distances(near, int(latent))[shuffled]
        pool = np.argpartition(distance, draws - 1)[:draws]
        anchors[place] = generator.permutation(shuffled[np.sort(pool)])
    return anchors, int(eligible.size)


class MatchedNulls:
    """The null of each set of candidates, whose anchors are drawn once however often it is asked.

    For comparisons that match by the same covariates: only the counts of children differ.
    """

    def __init__(self, draws_max: int, seed: int) -> None:
        """Begin without any anchors."""
        self._draws_max, self._seed = draws_max, seed
        self._drawn: dict[tuple[int, ...], tuple[Indices, int]] = {}

    def of(self, comparison: Comparison, candidates: Indices) -> MatchedNull:
        """Return what ``matched_null`` does."""
        key = tuple(candidates.tolist())
        if key not in self._drawn:
            self._drawn[key] = matched_anchors(comparison, candidates, self._draws_max, self._seed)
        return ranked(comparison, candidates, *self._drawn[key])


def squared_distances(points: Floats, place: int) -> Floats:
    """Return the squared distance of every point [points, axes] to one of them, [points]."""
    distance = np.zeros(len(points))
    for axis in points.T:  # a sum over a short last axis takes eight times as long
        distance += np.square(axis - axis[place])
    return distance


def ranked(
    comparison: Comparison, candidates: Indices, anchors: Indices, eligible: int
) -> MatchedNull:
    """Rank the candidates among their ``anchors`` [candidates, draws], drawn from ``eligible``."""
    draws, excess = anchors.shape[1], comparison.excess
    if excess is None or not draws:
        return _nothing(candidates.size, eligible)
    own = excess[candidates] - comparison.allowance(candidates)
    together = np.concatenate([own[:, None], excess[anchors]], axis=1)
    ranks = 100 * (scipy.stats.rankdata(together, axis=1) - 0.5) / (draws + 1)
    means = np.round(ranks.mean(axis=0), 9)
    covariates = comparison.covariates
    return MatchedNull(
        anchors=anchors,
        ranks=ranks[:, 0],
        mean_rank=float(means[0]),
        mean_ranks=means[1:],
        best=comparison.children[anchors].max(axis=0),
        eligible=eligible,
        differences={
            name: float(np.abs(values[anchors] - values[candidates][:, None]).mean())
            for name, values in (
                ("text_rate", covariates.text_rate),
                ("norm", covariates.norm),
                ("density", covariates.density),
            )
        },
    )


def nearest_matched(covariates: Covariates, candidates: Indices) -> Indices:
    """Return the latent that is most like each candidate in rate over text, norm and density.

    A living latent that is no candidate; empty where there is none, or no rates over text are
    known. Two candidates may have the same.
    """
    may_be_drawn = covariates.living.copy()
    may_be_drawn[candidates] = False
    eligible = np.flatnonzero(may_be_drawn)
    if not covariates.measured or not eligible.size:
        return np.empty(0, dtype=np.int64)
    near = covariates.standardised()
    distance = np.square(near[candidates][:, None] - near[eligible][None]).sum(axis=2)
    return np.asarray(eligible[distance.argmin(axis=1)])


def _nothing(candidates: int, eligible: int) -> MatchedNull:
    unknown = dict.fromkeys(("text_rate", "norm", "density"), float("nan"))
    return MatchedNull(
        anchors=np.empty((candidates, 0), dtype=np.int64),
        ranks=np.full(candidates, np.nan),
        mean_rank=float("nan"),
        mean_ranks=np.empty(0),
        best=np.empty(0, dtype=np.int64),
        eligible=eligible,
        differences=unknown,
    )
