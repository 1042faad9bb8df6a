"""The bundle of a cell says what it is one of, and ``verify`` derives it again from that."""

import json

import pytest
from sqlalchemy import func, update

from loopscope.reports.bundle import export_bundle
from loopscope.reports.crate import METADATA, OWNER, WHOLE
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.owned import OWNED, check_owner
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.rules import MappingRules
from loopscope.specs.sweep import cells
from loopscope.state.db import objects, tables
from loopscope.views.experiment import ExperimentView
from tests.tampering import copied
from tests.unit.reports_case import build

CELL = Key("Experiment", "default", "s-low")
CHANGES = {"mapping": MappingRules(minCosine=0.65).canonical()}
MATRIX = {"cosine": {"low": {"mapping.minCosine": 0.65}, "high": {"mapping.minCosine": 0.9}}}


def own(state, key, spec, name):
    """Make an owner of a hand-built experiment, which is called ``name`` from then on."""
    o = tables.objects
    with state.database.write() as connection:
        objects.apply(connection, key, spec, now=0.0)
        uid = objects.get(connection, key).uid
        cell = o.c.name == "france"
        connection.execute(
            update(o).where(cell).values(owner_uid=uid, owner_kind=key.kind, owner_name=key.name)
        )
        connection.execute(
            update(o).where(o.c.name.startswith("france")).values(
                name=func.replace(o.c.name, "france", name),
                owner_name=func.replace(o.c.owner_name, "france", name),
            )
        )  # fmt: skip


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A sweep s of two cells, of which s-low is an experiment with artifacts."""
    state, key = build(tmp_path_factory.mktemp("owned"), changes=CHANGES)
    with state.database.read() as connection:
        spec = objects.get(connection, key).spec
    own(state, Key("Experiment", "default", "s"), {**spec, "matrix": MATRIX}, "s-low")
    return state


@pytest.fixture(scope="module")
def made(state, tmp_path_factory):
    view = ExperimentView.load(state, CELL)
    return export_bundle(view, tmp_path_factory.mktemp("out") / "bundle")


@pytest.fixture
def bundle(made, tmp_path):
    return copied(made, tmp_path / "bundle")


def checked(bundle):
    findings = Findings()
    check_owner(OpenBundle(bundle), findings)
    return findings


def edit(bundle, change):
    owner = json.loads((bundle / OWNER).read_text(encoding="utf-8"))
    change(owner)
    (bundle / OWNER).write_text(json.dumps(owner), encoding="utf-8")


def places(findings):
    return [one.place for one in findings.differences]


def test_the_whole_sweep_is_in_the_bundle_and_stands_for_this_cell(bundle):
    owner = json.loads((bundle / OWNER).read_text(encoding="utf-8"))
    spec = owner["object"]["spec"]
    assert spec["matrix"] == MATRIX and owner["asks"] is True
    assert owner["digest"] == digest(spec)
    assert [one.suffix for one in cells(spec)] == ["high", "low"]
    findings = checked(bundle)
    assert findings.differences == [] and findings.compared[OWNED] == 5
    assert findings.owner.startswith("one of 2 cells of the sweep default/s (cosine low); its spec")
    assert owner["digest"] in findings.owner


def test_the_report_and_the_research_object_say_so_too(bundle):
    for page in ("report.html", "report-static.html"):
        text = (bundle / page).read_text(encoding="utf-8")
        assert "One of 2 cells of the sweep default/s (cosine low)" in text
    graph = json.loads((bundle / METADATA).read_text(encoding="utf-8"))["@graph"]
    found = {one["@id"]: one for one in graph}
    assert found["./"]["isPartOf"] == {"@id": WHOLE}
    assert found[WHOLE]["subjectOf"] == {"@id": OWNER} and OWNER in found
    assert "one of 2 cells" in found[WHOLE]["description"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda one: one.update(digest="0" * 64), "digest"),
        (lambda one: one.update(uid="another"), "uid"),
        (lambda one: one.update(asks=False), "asks for s-low with the spec of spec.yaml"),
        (lambda one: one["object"]["metadata"].update(name="t"), "name"),
        (lambda one: one["object"].update(kind="Study"), "kind"),
        (lambda one: one.pop("object"), OWNER),
    ],
)
def test_what_was_altered_in_it_is_a_difference(bundle, change, place):
    edit(bundle, change)
    assert place in places(checked(bundle))


def test_a_sweep_that_stands_for_another_spec_is_a_difference_whatever_its_digest_says(bundle):
    def change(owner):
        owner["object"]["spec"]["matrix"]["cosine"]["low"] = {"mapping.minCosine": 0.7}
        owner["digest"] = digest(owner["object"]["spec"])

    edit(bundle, change)
    assert places(checked(bundle)) == ["asks for s-low with the spec of spec.yaml"]


def test_a_sweep_of_more_cells_than_there_may_be_is_a_difference_at_once(bundle):
    axes = {f"a{n}": {f"v{m}": {} for m in range(40)} for n in range(40)}
    edit(bundle, lambda owner: owner["object"]["spec"].update(matrix=axes))
    assert OWNER in places(checked(bundle))


def test_an_older_bundle_of_a_cell_says_what_is_not_known(bundle):
    (bundle / OWNER).unlink()
    findings = checked(bundle)
    assert findings.differences == [] and findings.owner == ""
    assert "Experiment s was gone, or it is an older bundle" in findings.left_out.values()


def test_verify_prints_it_and_has_it_in_its_document(bundle, loopscope):
    _, out, _ = loopscope("verify", bundle)
    assert "\nowner:\n  one of 2 cells of the sweep default/s (cosine low)" in out
    _, out, _ = loopscope("verify", bundle, "-o", "json")
    assert json.loads(out)["owner"].startswith("one of 2 cells")


def test_an_experiment_of_its_own_has_no_owner(tmp_path):
    bundle = export_bundle(ExperimentView.load(*build(tmp_path)), tmp_path / "bundle")
    assert not (bundle / OWNER).exists()
    assert '"isPartOf"' not in (bundle / METADATA).read_text(encoding="utf-8")
    findings = checked(bundle)
    assert (findings.compared, findings.left_out, findings.owner) == ({}, {}, "")


def test_a_sweep_that_was_edited_since_is_told_apart_from_one_that_asks_for_it(tmp_path):
    state, key = build(tmp_path)
    with state.database.read() as connection:
        spec = objects.get(connection, key).spec
    sweep = Key("Experiment", "default", "s")
    own(state, sweep, {**spec, "matrix": MATRIX}, "s-low")
    bundle = export_bundle(ExperimentView.load(state, CELL), tmp_path / "edited")
    findings = checked(bundle)
    assert findings.differences == [] and "now asks for another spec here" in findings.owner
    with state.database.write() as connection:
        fewer = {"cosine": {"high": MATRIX["cosine"]["high"]}}
        objects.apply(connection, sweep, {**spec, "matrix": fewer}, now=1.0)
    bundle = export_bundle(ExperimentView.load(state, CELL), tmp_path / "gone")
    findings = checked(bundle)
    assert findings.differences == [] and "does not ask for it any more" in findings.owner
    assert "(generation 2)" in findings.owner


def test_a_concept_names_its_study_and_its_family(tmp_path):
    state, key = build(tmp_path)
    with state.database.read() as connection:
        spec = objects.get(connection, key).spec
    concept = {
        "family": "countries",
        "prompts": spec["prompts"],
        "lexicon": spec["steering"]["lexicon"],
        "siblings": {"texts": ["Peru"]},
    }
    study = {"experiment": spec, "concepts": {"france": concept, "peru": concept}}
    own(state, Key("Study", "default", "study"), study, "study-france")
    view = ExperimentView.load(state, Key("Experiment", "default", "study-france"))
    findings = checked(export_bundle(view, tmp_path / "bundle"))
    assert findings.differences == []
    assert "of 2 concepts of the study default/study (family countries)" in findings.owner
