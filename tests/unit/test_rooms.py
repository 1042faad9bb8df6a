"""The rooms inside rooms: few files lie flat, and each room says what it is."""

import ast

import pytest

from tests.tree import EVERYWHERE, ROOT

PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for room in (
        "controller",
        "state",
        "worker",
        "views",
        "reports",
        "server",
        "loopscope/terminal",
        "loopscope/commands",
    )
    for path in (ROOT / room).rglob("__init__.py")
    if path.parent.name not in {"versions", "commands"}
)


@pytest.mark.parametrize("room", ["controller", "loopscope/commands"])
def test_at_most_nine_files_lie_flat(room):
    assert len(list((ROOT / room).glob("*.py"))) <= 9


def test_each_room_is_linked_from_the_one_name():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"loopscope", "tests"}
    linked = {path.name: path for path in (ROOT / "loopscope").iterdir() if path.is_symlink()}
    assert linked.keys() == rooms
    assert {path.readlink().as_posix() for path in linked.values()} == {
        f"../{one}" for one in rooms
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_and_imports_nothing(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_what_crosses_a_border_has_a_type():
    places = (*EVERYWHERE, "docs", "examples", "benchmarks")
    sources = [path for place in places for path in (ROOT / place).rglob("*.py")]
    everything = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert everything.count("dict[str, Any]") <= 60
    assert "connection: Any" not in everything


RIDDLES = ("What", "How", "Why", "Which", "Who", "When", "Where", "Whether")


def test_a_module_begins_with_a_noun():
    sources = [path for room in EVERYWHERE for path in (ROOT / room).rglob("*.py")]
    firsts = {path: ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in sources}
    assert [path for path, text in firsts.items() if text.split(" ")[0] in RIDDLES] == []
