"""``compare``: what differs between two experiments, from what their artifacts hold."""

import html
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.db import objects
from loopscope.views.comparison import MIN_COSINE, compare
from tests.unit.reports_case import KINDS, NOW, build, inputs_of, set_stage, set_status
from tests.unit.reports_payloads import Payloads, Sizes

FRANCE, ROME = (Key("Experiment", "default", name) for name in ("france", "rome"))
MINE, OTHER = "cd" * 32, "ef" * 32


@pytest.fixture
def two(tmp_path):
    """Return a function that adds the experiment rome: the artifacts of france, another spec."""
    state, _ = build(tmp_path)

    def add(identity=MINE, stages=tuple(KINDS), **changes):
        with state.database.write() as connection:
            spec = {**objects.get(connection, FRANCE).spec, **changes}
            objects.apply(connection, ROME, spec, now=NOW)
            keys = {stage: Key(kind, "default", f"france-{stage}") for stage, kind in KINDS.items()}
            status = {stage: objects.get(connection, key).status for stage, key in keys.items()}
            known = {
                stage: artifact_index.get(connection, one.artifact.digest)
                for stage, one in status.items()
            }
        references = {
            stage: {"digest": one.digest, "contentDigest": one.content_digest}
            for stage, one in known.items()
        }
        payloads = Payloads(Sizes(), spec)
        for stage in KINDS:
            inputs = inputs_of(stage, references)
            if "dictionary" in inputs:
                inputs["dictionary"]["ref"]["identity"] = identity
            found = known[stage] if stage in stages else None
            set_stage(state, ROME, stage, found, inputs, payloads)
        ready = Condition("Ready", "True", "ChildrenReady", "all stages are done", 1, NOW)
        set_status(state, ROME, Status(1, (ready,)))
        return state

    return add


def geometry_of(state, coarse, fine, pairs, rows):
    """Publish the cosines of two dictionaries: (coarse latent, fine latent) -> cosine."""
    digest = "0a" * 32
    staging = state.artifacts.staging_folder(digest, 1)
    ordered = sorted(pairs)
    counts = np.bincount([first for first, _ in ordered], minlength=rows)
    tensors = {
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "fine": np.array([second for _, second in ordered], np.int32),
        "cosine": np.array([pairs[pair] for pair in ordered], np.float32),
    }
    save_file(tensors, staging / "neighbours.safetensors")
    manifest = {
        "stage": "geometry", "digest": digest, "metrics": {}, "createdAt": NOW,
        "codeRevision": CODE_REVISIONS["geometry"],
        "inputs": {"coarse": {"identity": coarse}, "fine": {"identity": fine}},
    }  # fmt: skip
    record = state.artifacts.seal(staging, manifest)
    with state.database.write() as connection:
        state.artifacts.publish(staging, record)
        artifact_index.record(connection, record)


def test_an_experiment_differs_from_itself_in_nothing(two):
    view = compare(two(), FRANCE, FRANCE)
    assert view.spec == () and view.problems == ()
    assert not any(one.differs for one in (*view.mapping, *view.verdict))
    for latents in view.latents:
        assert latents.how == "number" and latents.matches and not latents.only_second
        assert all(match.first == match.second for match in latents.matches)
        assert latents.direction_cosine == pytest.approx(1.0, abs=1e-5)


def test_fields_that_differ_are_named(two):
    view = compare(two(maxTokens=9), FRANCE, ROME)
    assert [(one.field, one.after) for one in view.spec] == [("maxTokens", 9)]


def test_other_dictionaries_are_not_matched_without_their_cosines(two):
    view = compare(two(identity=OTHER), FRANCE, ROME)
    assert {one.how for one in view.latents} == {"not matched"}
    assert all("no artifact holds the cosines" in one.note for one in view.latents)


@pytest.mark.parametrize("turned", [False, True])
def test_other_dictionaries_are_matched_by_the_cosines_of_a_geometry(two, turned):
    state = two(identity=OTHER)
    anchors = [match.first for match in compare(state, FRANCE, FRANCE).latents[0].matches]
    first, last = anchors[0], anchors[-1]
    cosines = {(first, last): 0.9, (last, first): MIN_COSINE - 0.01}
    if turned:
        cosines = {(b, a): cosine for (a, b), cosine in cosines.items()}
    pair = (OTHER, MINE) if turned else (MINE, OTHER)
    geometry_of(state, *pair, cosines, max(anchors) + 1)
    coarse = compare(state, FRANCE, ROME).latents[0]
    matches = {match.first: match for match in coarse.matches}
    assert coarse.how == "cosine"
    assert matches[first].second == last
    assert matches[first].cosine == pytest.approx(0.9)
    if first != last:
        assert matches[last].second is None
    assert set(coarse.only_second) == set(anchors) - {last}


def test_a_stage_that_is_not_there_is_a_problem_and_no_answer(two):
    view = compare(two(stages=("capture", "coarse", "fine", "mapping")), FRANCE, ROME)
    assert [name for name, _ in view.problems] == ["rome"]
    assert view.verdict[0].first is not None and view.verdict[0].second is None


def test_the_command_prints_a_table_or_a_document(two, loopscope):
    two(maxTokens=9).database.close()
    code, out, _ = loopscope("compare", "france", "exp/rome")
    assert code == 0 and out.splitlines()[0].split() == ["WHAT", "FRANCE", "ROME"]
    assert "spec.maxTokens" in out and "gate.verdict" in out and "anchors" in out
    document = json.loads(loopscope("compare", "exp", "france", "rome", "-o", "json")[1])
    assert document["spec"] == [{"field": "maxTokens", "first": 128, "second": 9}]
    assert document["latents"][0]["matchedBy"] == "number"


@pytest.mark.parametrize("words", [["france"], ["france", "rome", "x"], ["mapping", "france"]])
def test_two_experiments_are_compared_and_nothing_else(two, loopscope, words):
    two()
    assert loopscope("compare", *words)[0] == 2


def test_a_page_holds_what_the_terminal_prints_and_asks_for_nothing(two, loopscope, tmp_path):
    two(maxTokens=9).database.close()
    _, out, _ = loopscope("compare", "france", "rome")
    path = tmp_path / "both.html"
    code, said, _ = loopscope("compare", "france", "rome", "--html", path)
    page = html.unescape(path.read_text())
    assert (code, said) == (0, f"comparison: {path}\n")
    assert all(f">{line.split('  ')[0]}" in page for line in out.splitlines()[1:])
    assert "default-src 'none'" in page and "<script" not in page
    assert page.count('<tr class="differs">') == 1
    code, _, err = loopscope("compare", "france", "rome", "--html", path, "-o", "json")
    assert code == 2 and "give one of them" in err
