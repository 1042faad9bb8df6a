"""Names in the templates of pages mean what is stored under them, not a method of a dict."""

import re
from pathlib import Path

import pytest

from loopscope.reports import page

TEMPLATES = sorted((Path(page.__file__).parent / "templates").glob("*.j2"))
OWN_NAMES = re.compile(rf"\.({'|'.join(name for name in dir(dict) if name[0] != '_')})\b(?!\()")
"""``{{ metrics.items }}`` is the method of a dict, whatever the dict holds."""
OBJECTS = {"axis.values"}
"""What is no dict, and has such a name."""


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_key_is_read_by_a_name_that_a_dict_has_itself(template):
    code = re.findall(r"{[{%](.*?)[%}]}", template.read_text("utf-8"), flags=re.DOTALL)
    found = [re.findall(r"[\w.]*" + OWN_NAMES.pattern, piece) and piece for piece in code]
    assert [piece for piece in found if piece and not any(one in piece for one in OBJECTS)] == []
