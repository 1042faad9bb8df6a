"""Rows as dictionaries take them: some read the tokens before as well, from a text's BOS on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.numerics.steering.reading import residual_of
from loopscope.worker.context import StageContext
from loopscope.worker.models import LoadedModel

PHASE = "ReadingInContext"


@dataclass(frozen=True)
class Beginnings:
    """What stands at a hook where texts begin: it depends on no other token."""

    model: LoadedModel
    hook: str
    _known: dict[int, Tensor] = field(default_factory=dict)

    def of(self, token: int) -> Tensor:
        """Return the vector [1, width] of a first token."""
        if token not in self._known:
            place = self.model.place(self.hook)
            self._known[token] = residual_of(
                self.model.causal, place, [token], self.model.device
            ).cpu()
        return self._known[token]


def rows_read(
    dictionary: SparseDictionary,
    texts: Sequence[Tensor],
    first_tokens: Sequence[int],
    beginnings: Beginnings,
    context: StageContext,
) -> list[Tensor]:
    """Return the rows of each text, which are without its first token, as a dictionary takes them.

    They lie where the dictionary is, or where they were if it takes them as they are.
    """
    if not dictionary.reads_context:
        return list(texts)
    found = []
    for number, (text, token) in enumerate(zip(texts, first_tokens, strict=True)):
        context.progress(PHASE, number, len(texts), "texts")
        whole = torch.cat([beginnings.of(token), text.cpu()]).to(context.device)
        found.append(dictionary.in_context(whole)[1:])
    return found
