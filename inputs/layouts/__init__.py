"""Layouts of dictionaries: which files lie where, and what their place says of them.

One module an origin. What is common to all of them stands in ``loopscope.inputs.layouts.layout``.
"""

from __future__ import annotations

from collections.abc import Mapping

from loopscope.inputs.layouts.dictionary_learning import DICTIONARY_LEARNING
from loopscope.inputs.layouts.gemma_scope import (
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    GEMMA_SCOPE_2_TRANSCODER,
    GEMMA_SCOPE_TRANSCODER,
)
from loopscope.inputs.layouts.layout import Entry, Layout
from loopscope.inputs.layouts.llama_scope import LLAMA_SCOPE, LLAMA_SCOPE_R1
from loopscope.inputs.layouts.saelens import SAELENS
from loopscope.inputs.layouts.single_files import (
    DEEPSEEK_R1,
    GOODFIRE_FILE,
    GPT2_ATTENTION,
    QWEN_SCOPE,
)
from loopscope.inputs.layouts.sparsify import SPARSIFY
from loopscope.inputs.layouts.temporal import TEMPORAL
from loopscope.inputs.layouts.transcoders import MNTSS, MWHANNA

_ALL = (
    SAELENS, GEMMA_SCOPE, GEMMA_SCOPE_TRANSCODER, GEMMA_SCOPE_2_TRANSCODER, GEMMA_SCOPE_2,
    LLAMA_SCOPE, LLAMA_SCOPE_R1, MWHANNA, MNTSS, SPARSIFY, DICTIONARY_LEARNING, QWEN_SCOPE,
    GOODFIRE_FILE, DEEPSEEK_R1, GPT2_ATTENTION, TEMPORAL,
)  # fmt: skip
LOADERS = tuple(dict.fromkeys(layout.loader for layout in _ALL))
"""SAELens' names of the conversions of which there is a layout."""
BY_FORMAT: Mapping[str, Layout] = {
    layout.format: layout for layout in _ALL if layout.contents is not None
}
"""Those of which this package says what their files hold, by their name in references."""


def layout_of(loader: str, entry: Entry) -> Layout | None:
    """Return the layout of a dictionary that SAELens reads by ``loader``, or None."""
    of_loader = [layout for layout in _ALL if layout.loader == loader]
    return next((one for one in of_loader if one.applies is None or one.applies(entry)), None)
