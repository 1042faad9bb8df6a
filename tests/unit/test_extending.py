"""The pages for those who add something name files that exist, and tables that say the rest."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/extending").glob("*.md"))
DIALECT, MIGRATIONS = "state/db/dialect/", "state/db/migrations/"
ONLY_SQLITES = re.compile(
    r"import sqlite3|dialects\.|dialect\.sqlite|exec_driver_sql|json_(?:each|extract)|sqlite_\w+=|"
    r"(?i:pragma |begin immediate)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(r"`([\w./-]+\.(?:py|md))`", page.read_text(encoding="utf-8"))
    assert {name for name in named if "/" in name and not (ROOT / name).exists()} == set()


@pytest.mark.parametrize(
    ("page", "files_max"), [("hook", 4), ("kind", 10), ("command", 2), ("arm", 4), ("database", 8)]
)
def test_a_task_touches_a_handful_of_files(page, files_max):
    text = (ROOT / "docs/extending" / f"{page}.md").read_text(encoding="utf-8")
    assert 0 < len(re.findall(r"^\| `", text, re.MULTILINE)) <= files_max


def test_every_page_is_listed():
    listed = (ROOT / "docs/extending/README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in listed for page in PAGES if page.name != "README.md")


def test_outside_its_package_sqlite_is_known_to_the_files_that_the_page_names():
    rooms = (ROOT / "loopscope").iterdir()
    files = {file for room in rooms for file in [room, *room.rglob("*.py")] if file.suffix == ".py"}
    knowing = {
        file.resolve().relative_to(ROOT).as_posix()
        for file in files
        if ONLY_SQLITES.search(file.read_text(encoding="utf-8"))
    }
    page = (ROOT / "docs/extending/database.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w./-]+)`", page, re.MULTILINE))
    outside = {name for name in knowing if not name.startswith((DIALECT, MIGRATIONS))}
    assert outside and outside <= named
    assert any(name.startswith(DIALECT) for name in knowing)
