"""The pages for those who add something name files that exist, and tables that say the rest."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/extending").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(r"`([\w./-]+\.(?:py|md))`", page.read_text(encoding="utf-8"))
    assert {name for name in named if "/" in name and not (ROOT / name).exists()} == set()


@pytest.mark.parametrize(
    ("page", "files_max"),
    [("hook", 4), ("kind", 10), ("command", 2), ("arm", 4), ("store", 4), ("executor", 4)],
)
def test_a_task_touches_a_handful_of_files(page, files_max):
    text = (ROOT / "docs/extending" / f"{page}.md").read_text(encoding="utf-8")
    assert 0 < len(re.findall(r"^\| `", text, re.MULTILINE)) <= files_max


def test_every_page_is_listed():
    listed = (ROOT / "docs/extending/README.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in listed for page in PAGES if page.name != "README.md")


ROOMS = (
    "specs",
    "inputs",
    "state",
    "reconcilers",
    "controller",
    "worker",
    "views",
    "reports",
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
