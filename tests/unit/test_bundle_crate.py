"""A bundle is a research object: RO-Crate 1.2, cited by its digest."""

import hashlib
import json
import re
from urllib.parse import unquote

import pytest
from rocrate.rocrate import ROCrate

from loopscope.reports.bundle import export_bundle
from loopscope.reports.crate import CITATION, METADATA, SEAL, seal_of, sealed, written
from loopscope.specs.keys import AUTHOR_ANNOTATION, LICENCE_ANNOTATION
from loopscope.state.db import objects
from loopscope.views.experiment import ExperimentView
from tests.unit.reports_case import NOW, build

MIT = "https://spdx.org/licenses/MIT.html"


def exported(path, *, annotations=None, partial=False, **settings):
    state, key = build(path, **settings)
    if annotations:
        with state.database.write() as connection:
            stored = objects.get(connection, key)
            objects.apply(connection, key, stored.spec, now=NOW, annotations=annotations)
    view = ExperimentView.load(state, key)
    return export_bundle(view, path / "bundle", allow_partial=partial)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("crate"), evidence=True)


def described(bundle):
    return json.loads((bundle / METADATA).read_text(encoding="utf-8"))


def entities(bundle):
    return {one["@id"]: one for one in described(bundle)["@graph"]}


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def references(value):
    """Yield every ``{"@id": …}`` within an entity."""
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            yield value["@id"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_file_is_described_with_its_size_and_hash(bundle):
    found = {unquote(name): one for name, one in entities(bundle).items() if one["@type"] == "File"}
    assert set(found) == files_in(bundle) - {METADATA}
    for name, one in found.items():
        data = (bundle / name).read_bytes()
        assert one["contentSize"] == str(len(data))
        assert one["sha256"] == hashlib.sha256(data).hexdigest()
        assert one["description"] != name, f"{name} says what it is"
        assert one["encodingFormat"]


def test_a_library_for_research_objects_reads_it(bundle):
    crate = ROCrate(bundle)
    assert crate.version == "1.2"
    assert {unquote(one.id) for one in crate.data_entities} == files_in(bundle) - {METADATA}
    assert "france" in crate.root_dataset["name"]
    assert {"#capture", "#mapping", "#steering"} <= {
        one.id for one in crate.root_dataset["mentions"]
    }


def test_what_the_specification_says_that_must_be_is(bundle):
    """https://www.researchobject.org/ro-crate/specification/1.2 (Root Data Entity)"""
    crate, found = described(bundle), entities(bundle)
    assert crate["@context"] == "https://w3id.org/ro/crate/1.2/context"
    assert len(found) == len(crate["@graph"]), "each entity once"
    descriptor = found[METADATA]
    assert descriptor["@type"] == "CreativeWork"
    assert descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    root = found["./"]
    assert root["@type"] == "Dataset"
    assert all(isinstance(root[name], str) and root[name] for name in ("name", "description"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", root["datePublished"])
    assert {"name", "description"} <= set(found[root["license"]["@id"]])
    assert found[root["identifier"]["@id"]]["value"]
    parts = {one["@id"] for one in root["hasPart"]}
    assert parts == {name for name, one in found.items() if one["@type"] == "File"}
    named = set(references(crate["@graph"])) - {"https://w3id.org/ro/crate/1.2"}
    assert named <= set(found), "nothing refers to what is not described"
    for name, one in found.items():
        assert "@type" in one
        assert not name.startswith("/") and ".." not in name.split("/")


def test_each_stage_says_from_what_it_was_made_and_what_it_made(bundle):
    found = entities(bundle)
    made = found["#mapping"]
    assert {one["@id"] for one in made["object"]} == {
        f"manifests/{name}.json" for name in ("capture", "coarse", "fine")
    }
    results = {one["@id"] for one in made["result"]}
    assert {"gate.json", "pairs.parquet", "manifests/mapping.json"} <= results
    by_stage = [
        reference
        for one in found.values() if one["@type"] == "CreateAction"
        for reference in references(one["result"])
    ]  # fmt: skip
    assert len(by_stage) == len(set(by_stage)), "each file is made once"
    others = files_in(bundle) - {METADATA} - {unquote(name) for name in by_stage}
    pages = {"report.html", "report-static.html"}
    assert others == {"spec.yaml", "status.json", "sensitivity.parquet", CITATION} | pages


def test_the_seal_covers_every_entity(bundle):
    crate = described(bundle)
    graph = crate["@graph"]
    seal = entities(bundle)[SEAL]["value"]
    assert seal == seal_of(graph)
    for number, one in enumerate(graph):
        for name in one:
            if (one["@id"], name) == (SEAL, "value"):
                continue
            changed = [dict(entity) for entity in graph]
            changed[number][name] = "edited"
            assert seal_of(changed) != seal, f"{name} of {one['@id']}"


def test_the_description_has_one_way_to_be_written(bundle):
    text = (bundle / METADATA).read_text(encoding="utf-8")
    assert text == written(json.loads(text))
    graph = json.loads(text)["@graph"]
    assert sealed(graph[1:]) == json.loads(text), "sealing again changes nothing"


def test_the_citation_names_what_when_and_with_what(bundle):
    text = (bundle / CITATION).read_text(encoding="utf-8")
    root = entities(bundle)["./"]
    assert root["creditText"] == text.strip()
    assert root["name"] in text and root["datePublished"] in text
    assert "google/gemma-3-270m at blocks.12.hook_resid_post" in text


def test_authors_and_licence_come_from_annotations(tmp_path):
    named = {AUTHOR_ANNOTATION: "Ada Lovelace; Kurt Gödel", LICENCE_ANNOTATION: MIT}
    bundle = exported(tmp_path, annotations=named)
    found = entities(bundle)
    assert [found[one["@id"]]["name"] for one in found["./"]["author"]] == [
        "Ada Lovelace", "Kurt Gödel",
    ]  # fmt: skip
    assert found["./"]["license"] == {"@id": MIT}
    assert (bundle / CITATION).read_text(encoding="utf-8").startswith("Ada Lovelace; Kurt Gödel. ")


def test_without_a_licence_the_bundle_says_so(bundle):
    root = entities(bundle)["./"]
    assert "author" not in root
    assert "No licence was given" in entities(bundle)[root["license"]["@id"]]["description"]


def test_a_partial_bundle_describes_what_there_is(tmp_path):
    bundle = exported(tmp_path, partial=True, stages=("capture", "coarse"))
    found = entities(bundle)
    assert {"#capture", "#coarse"} <= set(found) and "#mapping" not in found
    parts = {unquote(one["@id"]) for one in found["./"]["hasPart"]}
    assert parts == files_in(bundle) - {METADATA}
