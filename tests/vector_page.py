"""The code of the page about vectors, as a reader copies it."""

from __future__ import annotations

import re
from types import SimpleNamespace

from tests.tree import ROOT

PAGE = ROOT / "docs/how-to/vectors.md"


def code_of_the_page() -> SimpleNamespace:
    """Return what the page's code defines."""
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"<!-- code that a test runs -->\n```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    defined: dict[str, object] = {}
    exec(compile(block[1], str(PAGE), "exec"), defined)
    return SimpleNamespace(**defined)
