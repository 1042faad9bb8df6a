"""The documents say what the code says."""

import ast
import importlib.util
import inspect
import re
import tomllib
from typing import get_args

import pytest
import typer

from loopscope.cli import application
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.reference import kind_facts
from loopscope.specs.status import WORD_BY_REASON
from loopscope.state.db import jobs, preemptions
from loopscope.state.records import JobState
from tests.tree import EVERYWHERE, ROOT

JOBS = "loopscope.state.db.jobs"
SKIPPED = {".venv", ".venv-latest", ".loopscope", ".git", "node_modules", "build", "dist"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(
        part in SKIPPED or part.startswith(".") for part in page.relative_to(ROOT).parts[:-1]
    )
)
COMMANDS = set(typer.main.get_command(application()).commands)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def visible(page):
    return re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


FENCE = re.compile(r"^```.*?$(.*?)^```", flags=re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")


def code_of(text):
    """Return what stands in fenced blocks and code spans, one string."""
    return "\n".join([*FENCE.findall(text), *SPAN.findall(FENCE.sub("", text))])


def links_of(page):
    prose = SPAN.sub("code", FENCE.sub("", visible(page)))
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def mentioned_commands(page):
    # "loopscope" as a program: at a line's start, after a path, a prompt or a semicolon
    pattern = r"(?:^|[\s;&|/$(])loopscope(?: --?[a-z]+[ =]\S+)* ([a-z][a-z-]*)"
    return set(re.findall(pattern, code_of(visible(page)), flags=re.MULTILINE))


def generator(name="generate_spec_reference"):
    found = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_spec_reference_is_what_the_models_generate():
    committed = (ROOT / "docs/spec.md").read_text(encoding="utf-8")
    assert committed == generator().render(), "run: python docs/generate_spec_reference.py"


def test_a_field_that_takes_words_or_an_object_names_both_in_the_spec_reference():
    rows = [line for line in generator().render().splitlines() if line.startswith("| `positions`")]
    assert rows
    either = "`afterTemplate` or [Position](#position) | "
    assert all(f'{either}`"last"`' in row or f'{either}`"all"`' in row for row in rows)


def test_every_field_of_the_spec_has_a_meaning():
    rows = [line for line in generator().render().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert not [row for row in rows if row.split(" | ")[-1].strip(" |") == ""]


def test_the_options_on_the_page_of_commands_are_those_of_the_commands():
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    generated = generator("generate_command_reference").render(page)
    assert page == generated, "run: python docs/generate_command_reference.py"


def test_each_command_has_one_place_for_its_options():
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    reference = generator("generate_command_reference")
    program = typer.main.get_command(application())
    names = [f"loopscope {name}" for name, _ in reference.commands_of(program)]
    assert sorted(reference.BLOCK.findall(page)) == sorted(["loopscope", *names])


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/status.md"])
def test_the_pictures_are_those_that_the_code_draws(page):
    committed = (ROOT / page).read_text(encoding="utf-8")
    generated = generator("generate_pictures").render(committed)
    assert committed == generated, "run: python docs/generate_pictures.py"


def test_the_counts_of_the_registry_are_those_that_the_code_finds():
    committed = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    generated = generator("generate_dictionary_table").render(committed)
    assert committed == generated, "run: python docs/generate_dictionary_table.py"


def test_the_pictures_leave_nothing_out():
    pictures = generator("generate_pictures")
    drawn = "\n".join(line for draw in pictures.PICTURES.values() for line in draw())
    pages = "\n".join(page.read_text(encoding="utf-8") for page in pictures.PAGES)
    assert set(pictures.BLOCK.findall(pages)) == set(pictures.PICTURES)
    written = {function for function, _ in pictures.WRITES.values()}
    written |= {*pictures.BIRTHS, *pictures.CHANGES_NO_STATE}
    own = {name for name, one in vars(jobs).items() if getattr(one, "__module__", "") == JOBS}
    through_them = {
        name
        for name, one in inspect.getmembers(preemptions, inspect.isfunction)
        if one.__module__ == preemptions.__name__
        and written.intersection(re.findall(r"\bjobs\.(\w+)\(", inspect.getsource(one)))
    }
    assert through_them, "preemption gives leases back"
    assert written == {name for name in own if name[0].islower()} | through_them
    assert set(WORD_BY_REASON.values()) <= set(re.findall(r"\w+", drawn))
    assert all(state in drawn for state in get_args(JobState))
    words = {f"`{word}`" for word in re.findall(r"<b>([A-Z]\w+)</b>", drawn)} | {"`Pending`"}
    stages = (ROOT / "docs/status.md").read_text(encoding="utf-8").split("a stage is one word:")[1]
    assert words == set(re.findall(r"`[A-Z]\w+`", stages.partition("\n\n")[0]))


def test_every_command_argument_and_option_says_what_it_is_for():
    reference = generator("generate_command_reference")
    program = typer.main.get_command(application())
    commands = [("loopscope", program), *reference.commands_of(program)]
    assert len(commands) > 15
    silent = [name for name, command in commands if not (command.help or "").strip()]
    silent += [
        f"{name} {parameter.opts[0]}"
        for name, command in commands
        for parameter in reference.parameters_of(command)
        if not (parameter.help or "").strip()
    ]
    assert silent == []


def test_every_field_of_every_kind_is_in_the_spec_reference():
    page = (ROOT / "docs/spec.md").read_text(encoding="utf-8")
    named = {field.name for kind in SPEC_BY_KIND for _, field in kind_facts(kind).below()}
    envelope = {"apiVersion", "kind", "metadata", "spec", "status"}
    assert {name for name in named - envelope if f"| `{name}` |" not in page} == set()


def test_every_command_is_documented():
    pages = (ROOT / "README.md", ROOT / "docs/commands.md")
    documented = set().union(*(mentioned_commands(page) for page in pages))
    assert COMMANDS - documented == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_is_mentioned_that_does_not_exist(page):
    assert mentioned_commands(page) - COMMANDS == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page):
    places = {target: page.parent / target.partition("#")[0] for target in links_of(page)}
    assert [target for target, place in places.items() if not place.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_anchors_within_the_documents_resolve(page):
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        if not anchor:
            continue
        text = (page.parent / path if path else page).read_text(encoding="utf-8")
        heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
        assert anchor in slugs, target


def reasons_in(rows):
    """Return the reasons that the rows of a table begin with, each as often as it is there."""
    firsts = [row.split("|")[1] for row in rows if row.startswith("| `")]
    return [reason for first in firsts for reason in re.findall(r"`([A-Z]\w+)`", first)]


def reasons_of_failures():
    return reasons_in((ROOT / "docs/failures.md").read_text(encoding="utf-8").splitlines())


def reasons_of_status():
    page = (ROOT / "docs/status.md").read_text(encoding="utf-8")
    return reasons_in(page.split("\n## Reasons\n")[1].split("\n## ")[0].splitlines())


def words_of_the_code():
    """Return every string of the code that could be a reason: one word in CamelCase."""
    files = [file for room in EVERYWHERE for file in (ROOT / room).rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    constants = (node.value for tree in trees for node in ast.walk(tree) if is_constant(node))
    return {value for value in constants if re.fullmatch(r"[A-Z][A-Za-z]+", str(value))}


def is_constant(node):
    return isinstance(node, ast.Constant)


def test_every_page_is_listed_where_its_readers_look():
    for folder in ("docs", "docs/decisions", "docs/extending"):
        index = ROOT / folder / "README.md"
        listed = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
        has_own_index = {ROOT / "docs/decisions", ROOT / "docs/extending"} - {ROOT / folder}
        pages = {
            page
            for page in (ROOT / folder).rglob("*.md")
            if page != index and (page.parent not in has_own_index or page.name == "README.md")
        }
        assert pages - listed == set()
    listed = {(ROOT / "docs" / link).resolve() for link in links_of(ROOT / "docs/README.md")}
    assert set(ROOT.glob("*.md")) - listed == set()


def test_what_make_test_leaves_out_as_long_another_target_runs():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m 'not long'" in makefile.split("\ntest: lint\n")[1].split("\n\n")[0]
    assert makefile.split("\nchaos-test:")[1].split("\n\n")[0].endswith(" -q tests/chaos")
    marked = {
        name_of(file)
        for file in (ROOT / "tests").rglob("test_*.py")
        if "mark." + "long" in file.read_text(encoding="utf-8")
    }
    outside = {name for name in marked if not name.startswith("tests/chaos/")}
    chat = makefile.split("\ntest-chat:")[1].split("\n\n")[0]
    assert outside == {chat.split()[-1]}, "make chaos-test runs all of that folder"


HOUSE = {
    "generation", "resource version", "condition", "finalizer", "owner", "field manager",
    "server-side apply", "admission", "leader election", "resync", "reclaim", "quarantine",
    "repair", "prune", "converged", "overlay", "power loss", "fault", "settled", "latent",
    "decoder row", "firing rate", "feature splitting", "ablate", "prefix", "control prompts",
    "gate", "verdict",
}  # fmt: skip
"""Words for which there once were private ones, or that are easily taken for something else."""


def test_the_glossary_explains_each_word_once_in_alphabetical_order():
    page = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    tables = [
        re.findall(r"^\| (?!word)([^|]+) \|", part, re.MULTILINE) for part in page.split("##")
    ]
    for words in tables:
        assert words == sorted(words, key=str.lower)
    words = [word for table in tables for word in table]
    assert len(set(words)) == len(words)
    assert set(words) >= HOUSE


def test_every_room_is_on_the_map():
    for page in ("CONTRIBUTING.md", "ARCHITECTURE.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert {room for room in EVERYWHERE if f"\n| `{room}/` |" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_of_make_that_is_mentioned_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    pattern = r"(?:^|\s)make ([a-z][a-z-]*)"
    assert set(re.findall(pattern, code_of(visible(page)), flags=re.MULTILINE)) <= targets


def test_the_changelog_begins_with_this_version_and_speaks_to_each_reader():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = text.split("\n## ")[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest.partition(" ")[0] == project["version"]
    readers = ["For users of specs", "For operators", "For developers"]
    assert re.findall(r"^### (.+)$", newest, flags=re.MULTILINE) == readers


def test_every_reason_of_failure_is_documented():
    named = re.compile(
        r"(?:TerminalFailure|TransientFailure|ResolutionPending|Blocked|_fail|Protected)[(,]"
        r"\s*(?:job, )?\"([A-Z][A-Za-z]+)\""
    )
    reasons = {
        reason
        for room in EVERYWHERE
        for file in (ROOT / room).rglob("*.py")
        for reason in named.findall(file.read_text(encoding="utf-8"))
    }
    assert len(reasons) > 30
    assert reasons - {*reasons_of_failures(), *reasons_of_status()} == set()


def test_a_reason_stands_in_one_table_and_once():
    listed = [*reasons_of_failures(), *reasons_of_status()]
    assert sorted(listed) == sorted(set(listed))
    assert (ROOT / "docs/failures.md").read_text(encoding="utf-8").count("\n|---") == 1


def test_every_documented_reason_is_one_of_the_code():
    assert {*reasons_of_failures(), *reasons_of_status()} - words_of_the_code() == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_other_page_has_a_table_of_failures(page):
    if page.name == "failures.md":
        return
    rows = visible(page).splitlines()
    assert set(reasons_in(rows)) & set(reasons_of_failures()) == set()
