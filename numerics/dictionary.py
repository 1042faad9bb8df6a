"""Sparse dictionaries: exact blocked encoding to CSR, decoding, reconstruction quality.

Dense activations of 12,800 rows over 262,144 latents are 13.4 GB; the sparse ones are a few
megabytes. So nothing here ever holds more than one block of rows by latents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

Architecture = Literal["standard", "jumprelu", "topk", "batchtopk"]

BLOCK_BYTES_MAX = 128 * 2**20
BLOCK_ELEMENTS_MAX = 2**31 - 1
"""``nonzero`` counts elements in int32: 8,192 rows by 262,144 latents already overflow."""
LATENTS_PER_BLOCK_MAX = 16_384


@dataclass(frozen=True)
class SparseDictionary:
    """A sparse autoencoder in the unit of the residual stream, every tensor float32.

    Activations are ``act((x - apply_b_dec_to_input * b_dec) @ w_enc + b_enc)`` and the
    reconstruction is ``a @ w_dec + b_dec``. ``act`` is ReLU for ``standard``; ReLU where the
    pre-activation exceeds ``threshold`` for ``jumprelu`` and for ``batchtopk`` (whose stored
    threshold replaces the batch); ReLU of the ``k`` largest pre-activations for ``topk``. Every
    input scaling is folded into the weights before a dictionary is built.
    """

    w_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    w_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, " d_in"]
    architecture: Architecture
    threshold: Float[Tensor, " d_sae"] | None = None
    k: int | None = None
    apply_b_dec_to_input: bool = True

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for shapes, dtypes or parts that do not make a dictionary."""
        if self.architecture not in get_args(Architecture):
            raise ValueError(f"unknown architecture {self.architecture!r}")
        expected = {
            "w_enc": (self.d_in, self.d_sae),
            "b_enc": (self.d_sae,),
            "w_dec": (self.d_sae, self.d_in),
            "b_dec": (self.d_in,),
        }
        if self.architecture in ("jumprelu", "batchtopk"):
            expected["threshold"] = (self.d_sae,)
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                found = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
                raise ValueError(f"{name} must be float32 of shape {shape}, found {found}")
        if self.architecture == "topk" and not (self.k and 1 <= self.k <= self.d_sae):
            raise ValueError(f"topk needs 1 <= k <= {self.d_sae}, found {self.k}")

    @property
    def d_in(self) -> int:
        """Width of the residual stream."""
        return int(self.w_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.w_enc.shape[1])

    def to(self, device: str) -> SparseDictionary:
        """Return the same dictionary on ``device`` (itself where it is there already)."""
        threshold = None if self.threshold is None else self.threshold.to(device)
        return replace(
            self,
            w_enc=self.w_enc.to(device),
            b_enc=self.b_enc.to(device),
            w_dec=self.w_dec.to(device),
            b_dec=self.b_dec.to(device),
            threshold=threshold,
        )


def block_shape(rows: int, latents: int, bytes_max: int = BLOCK_BYTES_MAX) -> tuple[int, int]:
    """Return (rows, latents) of one float32 block within ``bytes_max``, at least 1 by 1."""
    elements = max(1, min(bytes_max // 4, BLOCK_ELEMENTS_MAX))
    latent_block = max(1, min(latents, LATENTS_PER_BLOCK_MAX, elements))
    return max(1, min(rows, elements // latent_block)), latent_block


def encode(
    dictionary: SparseDictionary,
    x: Float[Tensor, "rows d_in"],
    row_block: int,
    latent_block: int,
) -> scipy.sparse.csr_array:
    """Return the activations [rows, d_sae] as float32 CSR with sorted indices, all stored > 0.

    ReLU and JumpReLU are sliced over latents; TopK keeps a running merge, so its choice is that
    of the whole row whatever the blocks; of equal pre-activations the lower latent wins. A block
    larger than int32 can count is narrowed. NaN in ``x`` would read as silence: check it before.
    """
    row_block = max(1, min(row_block, BLOCK_ELEMENTS_MAX // min(latent_block, dictionary.d_sae)))
    encode_rows = _encode_topk if dictionary.architecture == "topk" else _encode_thresholded
    blocks = [
        encode_rows(dictionary, x[start : start + row_block].float(), latent_block)
        for start in range(0, x.shape[0], row_block)
    ]
    if not blocks:
        return scipy.sparse.csr_array((0, dictionary.d_sae), dtype=np.float32)
    return blocks[0] if len(blocks) == 1 else scipy.sparse.vstack(blocks, format="csr")


def decode(
    dictionary: SparseDictionary, activations: scipy.sparse.csr_array
) -> Float[Tensor, "rows d_in"]:
    """Return the reconstructions of CSR activations, float32 on the dictionary's device."""
    device = dictionary.w_dec.device
    indices = torch.from_numpy(activations.indices.astype(np.int64)).to(device)
    offsets = torch.from_numpy(activations.indptr.astype(np.int64)).to(device)
    values = torch.from_numpy(activations.data.astype(np.float32)).to(device)
    summed = torch.nn.functional.embedding_bag(
        indices,
        dictionary.w_dec,
        offsets,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )
    return summed + dictionary.b_dec


def _encode_thresholded(
    dictionary: SparseDictionary, x: Float[Tensor, "rows d_in"], latent_block: int
) -> scipy.sparse.csr_array:
    """Encode one block of rows with ReLU or a stored threshold, latents block by block."""
    parts = []
    for start, hidden in _hidden_blocks(dictionary, x, latent_block):
        fires = hidden > 0
        if dictionary.threshold is not None:
            fires &= hidden > dictionary.threshold[start : start + hidden.shape[1]]
        rows, latents = fires.nonzero(as_tuple=True)
        coordinates = (rows.cpu().numpy(), latents.cpu().numpy())
        parts.append(
            scipy.sparse.csr_array(
                (hidden[rows, latents].cpu().numpy(), coordinates), shape=tuple(hidden.shape)
            )
        )
    return parts[0] if len(parts) == 1 else scipy.sparse.hstack(parts, format="csr")


def _encode_topk(
    dictionary: SparseDictionary, x: Float[Tensor, "rows d_in"], latent_block: int
) -> scipy.sparse.csr_array:
    """Encode one block of rows with TopK, merging the best of each block of latents."""
    k = int(dictionary.k or 0)
    values: Tensor | None = None
    latents: Tensor | None = None
    for start, hidden in _hidden_blocks(dictionary, x, latent_block):
        block_values, block_latents = _largest(hidden, k)
        block_latents = block_latents + start
        if values is None or latents is None:
            values, latents = block_values, block_latents
            continue
        merged = torch.cat([values, block_values], dim=1)
        order = torch.sort(merged, dim=1, descending=True, stable=True).indices[:, :k]
        values = merged.gather(1, order)
        latents = torch.cat([latents, block_latents], dim=1).gather(1, order)
    assert values is not None
    assert latents is not None
    rows, places = (values > 0).nonzero(as_tuple=True)
    coordinates = (rows.cpu().numpy(), latents[rows, places].cpu().numpy())
    return scipy.sparse.csr_array(
        (values[rows, places].cpu().numpy(), coordinates), shape=(x.shape[0], dictionary.d_sae)
    )


def _hidden_blocks(
    dictionary: SparseDictionary, x: Float[Tensor, "rows d_in"], latent_block: int
) -> Iterator[tuple[int, Float[Tensor, "rows latents"]]]:
    """Yield (first latent, pre-activations) for each block of latents."""
    centred = x - dictionary.b_dec if dictionary.apply_b_dec_to_input else x
    for start in range(0, dictionary.d_sae, latent_block):
        latents = slice(start, start + latent_block)
        yield start, centred @ dictionary.w_enc[:, latents] + dictionary.b_enc[latents]


def _largest(
    hidden: Float[Tensor, "rows latents"], k: int
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """Return the ``k`` largest of each row, falling; of equal values the lower latent first."""
    k = min(k, hidden.shape[1])
    latents = torch.topk(hidden, k, dim=1).indices.sort(dim=1).values
    smallest = hidden.gather(1, latents).min(dim=1, keepdim=True).values
    ambiguous = ((hidden >= smallest).sum(dim=1) > k) & (smallest[:, 0] > 0)
    if bool(ambiguous.any()):
        full = torch.sort(hidden[ambiguous], dim=1, descending=True, stable=True).indices
        latents[ambiguous] = full[:, :k].sort(dim=1).values
    values, order = torch.sort(hidden.gather(1, latents), dim=1, descending=True, stable=True)
    return values, latents.gather(1, order)


@dataclass(frozen=True)
class ReconstructionSums:
    """Streaming float64 sums behind L0, FVU, mean cosine and the count of living latents.

    ``mean`` and ``spread`` (sum of squared distances to the mean) are merged batch by batch
    (Chan, Golub, LeVeque 1979), so a large constant offset costs no digits.
    """

    rows: int
    mean: NDArray[np.float64]
    spread: float
    error: float
    cosines: float
    active: int
    firings: NDArray[np.int64]

    @staticmethod
    def empty(d_in: int, d_sae: int) -> ReconstructionSums:
        """Return the sums over no row."""
        firings = np.zeros(d_sae, dtype=np.int64)
        return ReconstructionSums(0, np.zeros(d_in), 0.0, 0.0, 0.0, 0, firings)

    @staticmethod
    def of(
        x: Float[Tensor, "rows d_in"],
        reconstruction: Float[Tensor, "rows d_in"],
        activations: scipy.sparse.csr_array,
    ) -> ReconstructionSums:
        """Return the sums of one batch of at least one row."""
        exact, rebuilt = x.double(), reconstruction.double()
        mean = exact.mean(dim=0)
        return ReconstructionSums(
            rows=int(x.shape[0]),
            mean=mean.cpu().numpy(),
            spread=float((exact - mean).square().sum()),
            error=float((exact - rebuilt).square().sum()),
            cosines=float(torch.nn.functional.cosine_similarity(exact, rebuilt, dim=1).sum()),
            active=int(activations.nnz),
            firings=np.bincount(activations.indices, minlength=activations.shape[1]),
        )

    def merge(self, other: ReconstructionSums) -> ReconstructionSums:
        """Return the sums over both batches."""
        rows = self.rows + other.rows
        if rows == 0:
            return self
        step = other.mean - self.mean
        share = other.rows / rows
        return ReconstructionSums(
            rows=rows,
            mean=self.mean + step * share,
            spread=self.spread + other.spread + float(step @ step) * self.rows * share,
            error=self.error + other.error,
            cosines=self.cosines + other.cosines,
            active=self.active + other.active,
            firings=self.firings + other.firings,
        )

    @property
    def l0(self) -> float:
        """Mean number of active latents per row; NaN over no row."""
        return self.active / self.rows if self.rows else float("nan")

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean||^2.

        The mean is taken over all rows and the sums come before the ratio, so a predictor of
        the mean scores exactly 1 (SAELens pull request 665 repaired a ratio about zero). NaN
        where the rows do not vary at all.
        """
        return self.error / self.spread if self.spread > 0 else float("nan")

    @property
    def cosine(self) -> float:
        """Mean cosine of a row and its reconstruction, 0 where one is zero; NaN over no row.

        A stream with a large constant offset gives every reconstruction of the mean a cosine
        near 1: FVU says what this number cannot.
        """
        return self.cosines / self.rows if self.rows else float("nan")

    @property
    def alive(self) -> int:
        """Number of latents active on at least one row."""
        return int(np.count_nonzero(self.firings))
