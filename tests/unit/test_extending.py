"""The pages for those who add something name files that exist, and tables that say the rest."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/extending").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+\.(?:py|md))`", text))
    shown = set(re.findall(r"`([\w./-]+\.py)`:\n\n```python", text))
    assert {name for name in named - shown if "/" in name and not (ROOT / name).exists()} == set()
    assert not any((ROOT / name).exists() for name in shown)


@pytest.mark.parametrize(
    ("page", "files_max"),
    [
        ("hook", 4),
        ("kind", 10),
        ("architecture", 2),
        ("texts", 2),
        ("outcome", 3),
        ("command", 2),
        ("arm", 4),
    ],
)
def test_a_task_touches_a_handful_of_files(page, files_max):
    text = (ROOT / "docs/extending" / f"{page}.md").read_text(encoding="utf-8")
    assert 0 < len(re.findall(r"^\| `", text, re.MULTILINE)) <= files_max


def test_every_page_is_listed():
    listed = (ROOT / "docs/extending/README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in listed for page in PAGES if page.name != "README.md")
