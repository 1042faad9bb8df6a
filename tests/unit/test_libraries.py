"""Each library is used where the decision about libraries says, and nowhere else."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.latest import plain
from tests.tree import EVERYWHERE, ROOT

ASIDE = {"dev", "demo", "page", "serve-test", "cluster-test", "judge-test"}
"""Extras that no module of ours imports."""
COMES_WITH = {"markupsafe": "jinja2", "pydantic-core": "pydantic"}
IMPORTED_BY_OTHERS = {"gguf"}
"""What a library that we use imports by itself, once it is told to."""


def where_the_decision_says():
    """Return the places by plain name of the library."""
    page = (ROOT / "docs/decisions/0009-libraries.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    return {
        plain(name.strip("| ")): set(re.findall(r"`([\w./]+)`", places))
        for names, _, places in rows
        for name in names.split(",")
    }


def files():
    for room in EVERYWHERE:
        for file in (ROOT / room).glob("**/*.py"):
            place = file.relative_to(ROOT).as_posix()
            if file.resolve() == ROOT / place:  # not through one of the links
                yield place, file.read_text(encoding="utf-8")


def imports():
    """Yield each import of something that is not ours: the library's plain name and the file."""
    distributions = packages_distributions()
    for place, text in files():
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            tops = {name.partition(".")[0] for name in names} - {"loopscope", "_typeshed"}
            for top in tops - set(sys.stdlib_module_names):
                library = plain(distributions.get(top, [top])[0])  # an extra may be missing
                yield COMES_WITH.get(library, library), place


def is_at(place, named):
    return place == named or (named.endswith("/") and place.startswith(named))


def test_nothing_is_imported_elsewhere():
    said = where_the_decision_says()
    elsewhere = {
        (library, place)
        for library, place in imports()
        if not any(is_at(place, named) for named in said.get(library, ()))
    }
    assert elsewhere == set()


def test_every_place_that_is_named_uses_its_library():
    texts = dict(files())
    found = {(library, place) for library, place in imports()}
    for library, places in where_the_decision_says().items():
        mentioned = {
            (library, place)
            for place, text in texts.items()
            if f'"{library.replace("-", "_")}"' in text or library in IMPORTED_BY_OTHERS
        }
        for named in places:
            used = {place for one, place in found | mentioned if one == library}
            assert any(is_at(place, named) for place in used), (library, named)


def test_every_library_that_the_package_needs_has_a_line_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(one for e in extras if e not in ASIDE for one in extras[e]),
    ]
    needed = {plain(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for one in asked}
    assert set(where_the_decision_says()) == needed - {"loopscope"}
