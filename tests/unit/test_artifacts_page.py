"""``docs/artifacts.md`` has the files, columns and keys that are declared."""

import re
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints, is_typeddict

import pytest

from loopscope.specs.artifact_files import Document, Table
from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.artifacts.verdict import Verdict
from tests.unit.test_docs import generator

PAGE = (Path(__file__).parents[2] / "docs/artifacts.md").read_text(encoding="utf-8")
FILES = [file for files in FILES_BY_STAGE.values() for file in files]


OF_BUNDLES = (SENSITIVITY, ROBUSTNESS, ROBUSTNESS_TEXTS)
"""Tables that no stage writes."""


def section(title):
    return next(part for part in re.split(r"^### ", PAGE, flags=re.M) if part.startswith(title))


def keys_of(shape):
    """Yield the keys of a TypedDict and of those within it."""
    if is_typeddict(shape):
        for name, inner in get_type_hints(shape).items():
            yield name
            yield from keys_of(inner)
    for inner in get_args(shape):
        yield from keys_of(inner)


def test_the_tables_are_what_the_declarations_generate():
    generated = generator("generate_artifact_tables").render(PAGE)
    assert generated == PAGE, "run: python docs/generate_artifact_tables.py"


def test_every_stage_and_every_table_has_its_place():
    places = set(re.findall(r"<!-- (files|columns) of (\S+) -->", PAGE))
    tables = {file.name for file in FILES if isinstance(file, Table)}
    wanted = {("files", stage) for stage in FILES_BY_STAGE}
    wanted |= {("columns", name.replace("features.", "features_coarse.")) for name in tables}
    wanted |= {("columns", one.name) for one in OF_BUNDLES}
    wanted.add(("columns", "OF_TEXTS"))  # what the outcomes in a column of names stand for
    assert places == wanted


@pytest.mark.parametrize("stage", FILES_BY_STAGE)
def test_every_metric_of_a_stage_is_explained_and_no_other(stage):
    metrics = getattr(import_module(f"loopscope.specs.payloads.{stage}"), f"{stage.title()}Metrics")
    table = section(f"{stage}/\n").partition("| metric | meaning |\n|---|---|\n")[2]
    rows = [line.split(" | ")[0] for line in table.partition("\n\n")[0].splitlines()]
    named = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(get_type_hints(metrics))


def test_every_file_that_is_bundled_stands_in_the_listing_of_the_bundle():
    listing = PAGE.partition("## The evidence bundle")[2].split("```")[1]
    bundled = {f.name for f in (*FILES, *OF_BUNDLES) if f.bundled is not None}
    assert bundled - set(listing.split()) == set()


@pytest.mark.parametrize(("name", "shape"), [("gate.json", Gate), ("verdict.json", Verdict)])
def test_every_key_of_a_document_is_explained_and_no_other(name, shape):
    text = section(name)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert named == set(get_type_hints(shape))
    assert set(keys_of(shape)) - set(re.findall(r"`(\w+)`", text)) == set()


@pytest.mark.parametrize("document", [f for f in FILES if isinstance(f, Document)])
def test_keys_are_in_snake_case_but_for_the_one_that_is_named_as_in_the_spec(document):
    odd = {key for key in keys_of(document.shape) if key != key.lower()}
    assert odd == ({"minSubfeatures"} if document.name == "gate.json" else set())
