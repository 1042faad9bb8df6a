"""The rooms inside rooms: few files lie flat, and each room says what it is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIALECTS = ROOT / "state" / "db" / "dialect"
CHOOSERS = {ROOT / "state" / "folder.py", ROOT / "state" / "read_only.py"}
"""They say which kind of database a state folder has."""
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


def test_sqlite_is_known_in_its_dialect_only():
    rooms = ("state", "controller", "views", "reports", "worker", "loopscope/commands")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    others = [path for path in sources if not path.is_relative_to(DIALECTS)]
    knowing = {path for path in others if any("sqlite" in name for name in _imported(path))}
    assert knowing == CHOOSERS


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
