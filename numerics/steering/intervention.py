"""Interventions on the residual stream: add a vector, and perhaps ablate latents first.

*Adding* is h + v. *Clamping* sets the latents that v is made of to what v stands for, and leaves
everything else of h, the dictionary's error with it, as it is: h + v − Σ a_i(h) w_i, with a_i the
activation of latent i on the residual at that position and w_i its decoder row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import SparseDictionary


@dataclass(frozen=True)
class LatentReader:
    """Some latents of one dictionary: their activations on a residual, and their decoder rows.

    ``encoder`` is as much of the dictionary as reading them needs; ``columns`` selects these
    latents in it.
    """

    encoder: SparseDictionary
    columns: tuple[int, ...]

    @staticmethod
    def of(dictionary: SparseDictionary, latents: Sequence[int]) -> LatentReader:
        """Return the reader of ``latents``, in their order."""
        return LatentReader(*dictionary.subset(latents))

    def to(self, device: torch.device | str) -> LatentReader:
        """Return the same reader on ``device``."""
        return LatentReader(self.encoder.to(str(device)), self.columns)

    @property
    def rows(self) -> Float[Tensor, "latents d_model"]:
        """The latents' decoder rows."""
        return self.encoder.w_dec[list(self.columns)]

    def activations(self, x: Float[Tensor, "states d_model"]) -> Float[Tensor, "states latents"]:
        """Return the latents' activations, float32."""
        return self.encoder.activations(x, self.columns)


@dataclass(frozen=True)
class Ablation:
    """Which latents each row ablates: 1 or 0 for each latent of all readers, one after another."""

    member: Float[Tensor, "rows latents"]
    readers: tuple[LatentReader, ...]

    def ablated(
        self, hidden: Float[Tensor, "given width d_model"]
    ) -> Float[Tensor, "rows width d_model"]:
        """Return Σ a_i(h) w_i over each row's latents, float32.

        A single given row stands for all rows. Rows that ablate nothing of a dictionary are
        not encoded with it.
        """
        total = torch.zeros(
            (len(self.member), *hidden.shape[1:]), dtype=torch.float32, device=hidden.device
        )
        first = 0
        for reader in self.readers:
            member = self.member[:, first : first + len(reader.columns)]
            first += len(reader.columns)
            moved = member.any(dim=1).nonzero()[:, 0]
            if not len(moved):
                continue
            read = hidden if len(hidden) == 1 else hidden[moved]
            found = reader.activations(read.flatten(0, 1)).view(*read.shape[:2], -1)
            total[moved] += (found * member[moved][:, None, :]) @ reader.rows
        return total


@dataclass(frozen=True)
class Intervention:
    """What each row does to the residual stream at the hook.

    ``vectors`` are added; with an ``ablation`` each row's latents are ablated as well, also
    where its vector is zero.
    """

    vectors: Float[Tensor, "rows d_model"]
    ablation: Ablation | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice | list[int]) -> Intervention:
        ablation = self.ablation
        if ablation is not None:
            ablation = replace(ablation, member=ablation.member[rows])
        return Intervention(self.vectors[rows], ablation)

    def keys(self) -> list[bytes]:
        """Return for each row what stands for its intervention: equal for equal ones."""
        ablation = self.ablation
        parts = [self.vectors] if ablation is None else [self.vectors, ablation.member]
        rows = torch.cat([part.float().cpu() for part in parts], dim=1).numpy()
        return [row.tobytes() for row in rows]

    def to(self, device: torch.device | str) -> Intervention:
        """Return the same intervention on ``device``."""
        ablation = self.ablation
        if ablation is not None:
            readers = tuple(reader.to(device) for reader in ablation.readers)
            ablation = Ablation(ablation.member.to(device), readers)
        return Intervention(self.vectors.to(device), ablation)

    def applied(
        self, hidden: Float[Tensor, "given width d_model"], mask: Bool[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width d_model"]:
        """Return the residual stream after the intervention, which acts where ``mask`` is true.

        A single given row is repeated for each row of the intervention.
        """
        vectors = self.vectors[:, None, :]
        if self.ablation is None:
            return hidden + vectors.to(hidden) * mask[:, :, None].to(hidden)
        change = (vectors - self.ablation.ablated(hidden)).to(hidden)
        return hidden + torch.where(mask[:, :, None], change, torch.zeros_like(change))
