"""Templates that were compiled once are not compiled again, and never stand for another one."""

import sys

import jinja2
import pytest
from jinja2 import Environment, FileSystemLoader, nodes

from loopscope.reports.page import html
from loopscope.reports.page.compiled import CompiledTemplates


@pytest.fixture(autouse=True)
def may_be_written(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def rendered(folder, options="plain"):
    """What the template says, and whether it had to be compiled."""
    compiles = []

    class Counted(Environment):
        def _generate(self, *given, **named):
            compiles.append(given)
            return super()._generate(*given, **named)

    made = Counted(loader=FileSystemLoader(folder), bytecode_cache=CompiledTemplates(options))
    return made.get_template("one.j2").render(name="Lyon"), bool(compiles)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "one.j2").write_text("Hello {{ name }}")
    return tmp_path


def kept(folder):
    return list((folder / "__pycache__").glob("*"))


def test_a_second_process_finds_what_the_first_compiled(folder):
    assert rendered(folder) == ("Hello Lyon", True)
    assert rendered(folder) == ("Hello Lyon", False)
    assert len(kept(folder)) == 1


def test_another_text_another_option_and_another_jinja_compile_again(folder, monkeypatch):
    rendered(folder)
    (folder / "one.j2").write_text("Bye {{ name }}")
    assert rendered(folder) == ("Bye Lyon", True)
    assert rendered(folder, "escaped") == ("Bye Lyon", True)
    monkeypatch.setattr(jinja2, "__version__", "99")
    assert rendered(folder, "escaped") == ("Bye Lyon", True)
    assert rendered(folder, "escaped") == ("Bye Lyon", False)
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-9], lambda data: b"x" * 99])
def test_what_was_cut_off_or_is_something_else_is_compiled_again(folder, harm):
    rendered(folder)
    (path,) = kept(folder)
    path.write_bytes(harm(path.read_bytes()))
    assert rendered(folder) == ("Hello Lyon", True)
    assert rendered(folder) == ("Hello Lyon", False)


def test_where_python_may_write_no_modules_none_is_written(folder, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert rendered(folder) == ("Hello Lyon", True)
    assert not (folder / "__pycache__").exists()


def test_a_place_that_cannot_be_written_is_no_trouble(folder, monkeypatch):
    (folder / "__pycache__").write_text("a file in the way")
    assert rendered(folder) == ("Hello Lyon", True)


def test_no_template_applies_a_filter_to_a_constant():
    """Jinja would compute it while it compiles, and what was kept would outlive the filter."""
    environment = html.environment()
    for path in sorted(html.TEMPLATES.glob("*.j2")):
        tree = environment.parse(path.read_text("utf-8"))
        for one in tree.find_all(nodes.Filter):
            with pytest.raises(nodes.Impossible):
                one.as_const()
