"""A language model of one block that changes nothing: what it returns can be written down."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from loopscope.numerics.model.causal_model import CausalModel, OutputHead


class PassingOn(nn.Module):
    """The residual stream is the embedding."""

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.embedding = embedding
        self.block = nn.Identity()

    def forward(self, input_ids: Tensor, **_: object) -> SimpleNamespace:
        hidden = self.block(self.embedding[input_ids])
        return SimpleNamespace(last_hidden_state=hidden, past_key_values=None)


def toy_model(embedding: Tensor, unembedding: Tensor) -> CausalModel:
    """Return a model whose logits are ``unembedding @ residual``."""
    body = PassingOn(embedding)
    return CausalModel(body, [body.block], OutputHead(torch.as_tensor(unembedding)))
