"""The prompts of a decomposition: the split from its payload, beside what was captured."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from loopscope.numerics.latents.splits import DiscoverRows, HeldOutRows, split_rows
from loopscope.specs.artifacts.decomposition import PROMPTS
from loopscope.specs.payloads.references import DecompositionReference
from loopscope.worker.context import StageContext
from loopscope.worker.stages.tables import read_columns


def read_prompts(
    decomposition: DecompositionReference, context: StageContext
) -> dict[str, NDArray[Any]]:
    """Return the columns of a decomposition's table of prompts, one entry a prompt."""
    folder = context.artifact("decomposition", decomposition["digest"])
    return read_columns(folder / PROMPTS.name)


def prompt_rows(
    activations: scipy.sparse.csr_array, prompts: dict[str, NDArray[Any]]
) -> tuple[DiscoverRows, HeldOutRows | None]:
    """Return the two splits of prompt activations [prompts, latents]; None without test rows."""
    condition, split = (prompts[name].astype(np.str_) for name in ("condition", "split"))
    return split_rows(activations, condition, split, prompts.get("group"))
