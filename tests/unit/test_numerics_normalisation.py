"""What a norm does before its weights is learned from the norm, and only believed if it fits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loopscope.numerics.model.normalisation import normalisation_of

WIDTH = 16


class GemmaLike(nn.Module):
    """An RMSNorm that multiplies by 1 + weight."""

    def __init__(self):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(WIDTH)), 1e-6

    def forward(self, x):
        rows = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return (rows * (1 + self.weight.float())).to(x)


class Scaled(GemmaLike):
    """No norm that is known: its result depends on the length of the row."""

    def forward(self, x):
        return x * self.weight


def norm_of(kind, dtype):
    generator = torch.Generator().manual_seed(0)
    norm = kind(WIDTH) if kind in (nn.LayerNorm, nn.RMSNorm) else kind()
    if kind is nn.RMSNorm:
        norm.eps = 1e-5
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(WIDTH, generator=generator))
    return norm.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm, GemmaLike])
def test_gain_and_centring_are_those_of_the_norm(kind, dtype):
    norm = norm_of(kind, dtype)
    found = normalisation_of(norm)
    weight = norm.weight.float() + (kind is GemmaLike)
    assert found.centres == (kind is nn.LayerNorm)
    assert torch.allclose(found.gain, weight, atol=2e-2 if dtype is torch.bfloat16 else 1e-6)
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    plain = x - x.mean(dim=-1, keepdim=True) if found.centres else x
    expected = plain / (plain.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    assert torch.allclose(found.normalised(x), expected, atol=1e-6)


def test_what_is_no_norm_has_none():
    assert normalisation_of(norm_of(Scaled, torch.float32)) is None
    assert normalisation_of(nn.Linear(WIDTH, WIDTH)) is None
    assert normalisation_of(nn.Identity()) is None
