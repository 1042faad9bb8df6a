"""What steering does to a text at each of its positions, where a budget measures a few."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from loopscope.numerics.model.causal_model import CausalModel
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.fixed_text import read_text
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.scores import text_kl, text_loss_rise


def next_token_kl(
    model: CausalModel, place: HookPlace, tokens: Sequence[int], intervention: Intervention
) -> Tensor:
    """Return ``text_kl`` at each position of ``tokens`` but BOS, [cells, positions]."""
    device = intervention.vectors.device
    text = read_text(model, place, tokens, range(1, len(tokens)), device)
    return text_kl(model, [text], intervention)[0]


def loss_rise(
    model: CausalModel, place: HookPlace, tokens: Sequence[int], intervention: Intervention
) -> Tensor:
    """Return ``text_loss_rise`` at each position but BOS and the last, which predicts nothing."""
    device = intervention.vectors.device
    text = read_text(model, place, tokens, range(1, len(tokens) - 1), device)
    return text_loss_rise(model, [text], intervention)[0]
