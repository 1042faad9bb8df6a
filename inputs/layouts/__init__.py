"""Layouts of dictionaries: which files lie where, and what their place says of them.

One module an origin. What is common to all of them stands in ``loopscope.inputs.layouts.layout``.
"""

from __future__ import annotations

from collections.abc import Mapping

from loopscope.inputs.layouts.dictionary_learning import DICTIONARY_LEARNING
from loopscope.inputs.layouts.gemma_scope import (
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    GEMMA_SCOPE_TRANSCODER,
)
from loopscope.inputs.layouts.layout import Layout
from loopscope.inputs.layouts.llama_scope import LLAMA_SCOPE, LLAMA_SCOPE_R1
from loopscope.inputs.layouts.saelens import SAELENS
from loopscope.inputs.layouts.single_files import (
    DEEPSEEK_R1,
    GOODFIRE_FILE,
    GPT2_ATTENTION,
    QWEN_SCOPE,
)
from loopscope.inputs.layouts.sparsify import SPARSIFY
from loopscope.inputs.layouts.transcoders import MNTSS, MWHANNA

_ALL = (
    SAELENS, GEMMA_SCOPE, GEMMA_SCOPE_2, GEMMA_SCOPE_TRANSCODER, LLAMA_SCOPE, LLAMA_SCOPE_R1,
    MWHANNA, MNTSS, SPARSIFY, DICTIONARY_LEARNING, QWEN_SCOPE, GOODFIRE_FILE, DEEPSEEK_R1,
    GPT2_ATTENTION,
)  # fmt: skip
LAYOUTS: Mapping[str, Layout] = {layout.loader: layout for layout in _ALL}
"""By SAELens' name of the conversion."""
BY_FORMAT: Mapping[str, Layout] = {
    layout.format: layout for layout in _ALL if layout.contents is not None
}
"""Those of which this package says what their files hold, by their name in references."""
