"""The pages for those who add something name files that exist, and tables that say the rest."""

import re
from pathlib import Path

import pytest

from loopscope.specs.hooks import STREAMS, Hook

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/extending").glob("*.md"))
DIALECT, MIGRATIONS = "state/db/dialect/", "state/db/migrations/"
ONLY_SQLITES = re.compile(
    r"import sqlite3|dialects\.|dialect\.sqlite|exec_driver_sql|json_(?:each|extract)|sqlite_\w+=|"
    r"(?i:pragma |begin immediate)"
)
ONLY_POSTGRES = re.compile(
    r"psycopg|dialects?[. ]\S*postgresql|postgresql[_:]|json_array_elements|setval|\bpg_\w+"
)
COPIES = "state/db/rows.py"
"""A copy is a file of SQLite, whatever it is a copy of."""


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
        ("layout", 3),
        ("texts", 2),
        ("outcome", 3),
        ("command", 2),
        ("arm", 4),
        ("database", 8),
        ("store", 4),
        ("executor", 4),
    ],
)
def test_a_task_touches_a_handful_of_files(page, files_max):
    text = (ROOT / "docs/extending" / f"{page}.md").read_text(encoding="utf-8")
    table = text.partition("| file | what to do |")[2].partition("\n\n")[0]
    first = "".join(re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE))
    assert 0 < len(set(re.findall(r"`(.*?)`", first))) <= files_max


def test_every_stream_stands_in_the_table_of_places():
    page = (ROOT / "docs/science.md").read_text(encoding="utf-8")
    table = page.partition("## Places")[2].partition("\n## ")[0]
    names = {str(Hook(0, stream)).removeprefix("blocks.0.") for stream in STREAMS}
    rows = "".join(re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE))
    assert set(re.findall(r"`(.*?)`", rows)) == names


def test_every_page_is_listed():
    listed = (ROOT / "docs/extending/README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in listed for page in PAGES if page.name != "README.md")


@pytest.mark.parametrize("words", [ONLY_SQLITES, ONLY_POSTGRES], ids=["SQLite", "PostgreSQL"])
def test_outside_its_package_a_database_is_known_to_the_files_that_the_page_names(words):
    rooms = (ROOT / "loopscope").iterdir()
    files = {file for room in rooms for file in [room, *room.rglob("*.py")] if file.suffix == ".py"}
    knowing = {
        file.resolve().relative_to(ROOT).as_posix()
        for file in files
        if words.search(file.read_text(encoding="utf-8"))
    }
    page = (ROOT / "docs/extending/database.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w./-]+)`", page, re.MULTILINE))
    outside = {name for name in knowing if not name.startswith((DIALECT, MIGRATIONS))}
    assert outside and outside - {COPIES} <= named
    assert any(name.startswith(DIALECT) for name in knowing)


ROOMS = (
    "specs",
    "inputs",
    "state",
    "reconcilers",
    "controller",
    "worker",
    "views",
    "reports",
    "server",
    "loopscope",
)


@pytest.mark.parametrize(
    ("name", "known_to"),
    [
        (
            r"FolderStore\b|ShardFolder\b|Trash\b",
            {
                "state/artifacts/folder_store.py",
                "state/artifacts/shard_folder.py",
                "state/artifacts/trash.py",
                "state/folder.py",
            },
        ),
        ("LocalProcesses", {"controller/jobs/local_processes.py", "controller/runtime.py"}),
        (
            "process_exists",
            {
                "state/processes.py",
                "state/workers.py",
                "state/db/leader.py",  # a controller is a process of this machine
                "controller/jobs/local_processes.py",
            },
        ),
        (r"worker-[*{]", {"state/workers.py"}),
    ],
    ids=["folders", "processes", "liveness", "logs"],
)
def test_the_present_way_is_known_to_the_files_that_its_page_names_and_to_no_other(name, known_to):
    sources = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if re.search(rf"\b({name})", path.read_text())
    }
    assert found == known_to
