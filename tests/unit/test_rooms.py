"""The rooms inside rooms: few files lie flat, and each room says what it is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for room in ("controller", "state", "worker", "views", "reports", "loopscope/terminal")
    for path in (ROOT / room).rglob("__init__.py")
    if path.parent.name != "versions"
)


def test_at_most_nine_files_lie_flat_in_the_controller():
    assert len(list((ROOT / "controller").glob("*.py"))) <= 9


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_and_imports_nothing(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1
