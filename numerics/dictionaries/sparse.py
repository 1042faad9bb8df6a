"""Sparse dictionaries: exact blocked encoding to CSR, decoding, reconstruction quality.

Dense activations of 12,800 rows over 262,144 latents are 13.4 GB; the sparse ones are a few
megabytes. So nothing here ever holds more than one block of rows by latents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Axis = Literal["d_in", "d_sae", "d_out", "d_attn"]

BLOCK_BYTES_MAX = 128 * 2**20
BLOCK_ELEMENTS_MAX = 2**31 - 1
"""``nonzero`` counts elements in int32: 8,192 rows by 262,144 latents already overflow."""
LATENTS_PER_BLOCK_MAX = 16_384


class Margins(NamedTuple):
    """Activations, and how far each of them lies above the edge at which it would be silent.

    ``margins`` has one pre-activation minus its edge for each stored activation, in its order.
    ``rivals`` is, for each row, the latent that stands at the edge (the first that TopK leaves
    out), -1 where the edge is a number.
    """

    activations: scipy.sparse.csr_array
    margins: NDArray[np.float64]
    rivals: NDArray[np.int64]


@dataclass(frozen=True)
class SparseDictionary(ABC):
    """A sparse autoencoder in the unit of the residual stream, every tensor float32.

    What latents read of a row is the architecture's: each is a class of its own, in
    ``loopscope.numerics.architectures``. The reconstruction is ``a @ w_dec + b_dec``, of the rows
    that are read (``d_out`` is ``d_in``), or of those at another place: a transcoder. Every input
    scaling is folded into the weights before a dictionary is built.
    """

    architecture: ClassVar[str]
    """SAELens' name of the architecture."""
    required_tensors: ClassVar[Mapping[str, tuple[Axis, ...]]] = {
        "w_enc": ("d_in", "d_sae"),
        "b_enc": ("d_sae",),
        "w_dec": ("d_sae", "d_in"),
        "b_dec": ("d_in",),
    }
    """The tensors that make a dictionary, each a field, with their axes."""
    reads_context: ClassVar[bool] = False
    """Whether what is read of a row depends on the rows before it in its text."""

    w_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    w_dec: Float[Tensor, "d_sae d_out"]
    b_dec: Float[Tensor, " d_out"]
    apply_b_dec_to_input: bool = field(default=True, kw_only=True)
    release: Callable[[], None] = field(
        default=lambda: None, kw_only=True, repr=False, compare=False
    )
    """Gives back the memory of weights that can be read again from a file, between blocks."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for shapes, dtypes or settings that do not make a dictionary."""
        sizes = self.sizes
        for name, axes in self.required_tensors.items():
            tensor, shape = getattr(self, name), tuple(sizes[axis] for axis in axes)
            if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
                found = f"{tensor.dtype} {tuple(tensor.shape)}"
                raise ValueError(f"{name} must be float32 of shape {shape}, found {found}")

    @property
    def d_in(self) -> int:
        """Width of the rows that are read."""
        return int(self.w_enc.shape[0])

    @property
    def d_out(self) -> int:
        """Width of the rows that are written."""
        return int(self.w_dec.shape[1])

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.w_enc.shape[1])

    @property
    def sizes(self) -> dict[Axis, int]:
        """Length of each axis."""
        return {"d_in": self.d_in, "d_sae": self.d_sae, "d_out": self.d_out}

    def to(self, device: str) -> Self:
        """Return the same dictionary on ``device``; tensors that are there already are shared."""
        moved = {name: getattr(self, name).to(device) for name in self.required_tensors}
        return replace(self, **moved)

    def centred(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Return the rows as the encoder reads them."""
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def in_context(self, text: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens read"]:
        """Return the rows of a text from its BOS on as all other methods take them: as they are.

        Where ``reads_context`` they hold what is read of the rows before as well, and are wider.
        """
        return text

    def lengths(self, x: Float[Tensor, "rows read"]) -> Float[Tensor, " rows"]:
        """Return the length of what is summed of each row, the unit of its rounding."""
        found: Tensor = torch.linalg.vector_norm(self.centred(x), dim=1)
        return found

    @abstractmethod
    def encode_block(
        self, x: Float[Tensor, "rows d_in"], latent_block: int
    ) -> scipy.sparse.csr_array:
        """Return the activations [rows, d_sae] of float32 rows, all stored > 0.

        No more than ``latent_block`` latents of all rows are held dense at once.
        """

    @abstractmethod
    def with_margins(
        self, x: Float[Tensor, "rows d_in"], row_block: int, latent_block: int
    ) -> Margins:
        """Return the activations as ``encode`` does, each with its margin."""

    def reconstruct(
        self, x: Float[Tensor, "rows d_in"], activations: scipy.sparse.csr_array
    ) -> Float[Tensor, "rows d_out"]:
        """Return what the activations of the rows ``x`` stand for where it is written, float32."""
        return decode(self, activations)

    def subset(self, latents: Sequence[int]) -> tuple[SparseDictionary, tuple[int, ...]]:
        """Return the smallest dictionary that reads ``latents`` as this one does.

        And their numbers in it. Where latents compete that is the whole dictionary.
        """
        return self, tuple(latents)

    def activations(
        self, x: Float[Tensor, "rows d_in"], latents: Sequence[int]
    ) -> Float[Tensor, "rows latents"]:
        """Return the dense activations of some latents, float32, on the rows' device."""
        found = encode(self, x, *block_shape(len(x), self.d_sae))[:, list(latents)]
        return torch.from_numpy(found.toarray()).to(x.device)


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

    Blocks change nothing. One larger than int32 can count is narrowed. NaN in ``x`` would read as
    silence: check it before.
    """
    row_block = max(1, min(row_block, BLOCK_ELEMENTS_MAX // min(latent_block, dictionary.d_sae)))
    blocks = [
        dictionary.encode_block(x[start : start + row_block].float(), latent_block)
        for start in range(0, x.shape[0], row_block)
    ]
    if not blocks:
        return scipy.sparse.csr_array((0, dictionary.d_sae), dtype=np.float32)
    return blocks[0] if len(blocks) == 1 else scipy.sparse.vstack(blocks, format="csr")


def rows_of(activations: scipy.sparse.csr_array) -> NDArray[np.int64]:
    """Return the row of each stored activation."""
    return np.repeat(np.arange(activations.shape[0]), np.diff(activations.indptr))


def decode(
    dictionary: SparseDictionary, activations: scipy.sparse.csr_array
) -> Float[Tensor, "rows d_out"]:
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
    dictionary.release()
    return summed + dictionary.b_dec


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
    def empty(d_out: int, d_sae: int) -> ReconstructionSums:
        """Return the sums over no row."""
        firings = np.zeros(d_sae, dtype=np.int64)
        return ReconstructionSums(0, np.zeros(d_out), 0.0, 0.0, 0.0, 0, firings)

    @staticmethod
    def of(
        x: Float[Tensor, "rows d_out"],
        reconstruction: Float[Tensor, "rows d_out"],
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
        near 1; FVU does not have this weakness.
        """
        return self.cosines / self.rows if self.rows else float("nan")

    @property
    def alive(self) -> int:
        """Number of latents active on at least one row."""
        return int(np.count_nonzero(self.firings))
