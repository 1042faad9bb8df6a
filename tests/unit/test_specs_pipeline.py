"""The pipeline is one thing: every table about stages follows from it, and none lacks a kind."""

import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from loopscope.context import KIND_BY_WORD
from loopscope.controller.plan.reasons import change_words
from loopscope.reconcilers.registry import DESIRED_BY_KIND, OWNED_BY_KIND
from loopscope.reports.page.provenance import _TITLES
from loopscope.reports.tables import listing
from loopscope.specs import pipeline
from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.specs.fields import Reference
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.pipeline import (
    ALONE,
    NODE_NAMES,
    NODES,
    PIPELINE,
    REFERENCE_KINDS,
    SHARED,
    STAGE_KINDS,
    NodeName,
    made_again_with,
    nodes_of,
)

ROOT = Path(__file__).parents[2]


def test_a_node_comes_after_everything_that_it_reads():
    order = list(NODE_NAMES)
    assert all(order.index(up) < order.index(n.name) for n in PIPELINE for up in n.reads)
    assert list(get_args(NodeName)) == order


@pytest.mark.parametrize("kind", [*STAGE_KINDS, "Experiment"])
def test_no_table_lacks_a_kind(kind):
    assert kind in SPEC_BY_KIND
    assert kind in KIND_BY_WORD.values()
    assert {kind.lower(), f"{kind.lower()}s"} <= set(KIND_BY_WORD)
    assert listing.listing(kind, [], now=0.0, wide=True).columns
    assert re.search(rf"\b{kind}\b", (ROOT / "docs/spec.md").read_text())


@pytest.mark.parametrize("shared", SHARED, ids=lambda shared: shared.stage)
def test_a_shared_stage_is_no_kind_and_has_everything_else(shared):
    assert shared.stage in CODE_REVISIONS and shared.stage in REVISION_NOTES
    assert shared.stage not in {node.stage for node in PIPELINE}
    assert {*shared.needed_by, *shared.loads} <= set(NODE_NAMES)
    assert callable(importlib.import_module(f"loopscope.worker.stages.{shared.stage}.stage").run)


@pytest.mark.parametrize("alone", ALONE, ids=lambda alone: alone.kind)
def test_a_kind_that_no_experiment_owns_has_everything_but_a_column(alone):
    assert alone.kind in DESIRED_BY_KIND
    assert alone.stage in CODE_REVISIONS and alone.stage in REVISION_NOTES
    assert alone.stage not in {node.stage for node in PIPELINE}
    assert set(alone.upstream.values()) <= set(NODE_NAMES)
    assert callable(importlib.import_module(f"loopscope.worker.stages.{alone.stage}.stage").run)
    assert alone.kind.upper() not in listing.column_names("Experiment", [], wide=True)
    assert (ROOT / "docs/schema" / f"{alone.kind.lower()}.json").exists()


@pytest.mark.parametrize("node", PIPELINE, ids=lambda node: node.name)
def test_no_table_lacks_a_node(node):
    assert node.kind in DESIRED_BY_KIND
    assert node.kind in OWNED_BY_KIND
    assert node.stage in CODE_REVISIONS and node.stage in REVISION_NOTES
    assert callable(importlib.import_module(f"loopscope.worker.stages.{node.stage}.stage").run)
    assert node.name.upper() in listing.column_names("Experiment", [], wide=True)
    assert change_words(node.name, "a", "b").endswith("changed")
    assert (node.name in _TITLES) == (node.loads is not None)
    assert (ROOT / "docs/schema" / f"{node.kind.lower()}.json").exists()


def test_reference_fields_are_those_of_the_specs():
    declared = {
        field.alias: kind
        for kind in STAGE_KINDS
        for field in SPEC_BY_KIND[kind].model_fields.values()
        if Reference in (field.annotation, *get_args(field.annotation))
    }
    assert set(declared) == set(REFERENCE_KINDS)
    assert all(
        field in {f.alias for f in SPEC_BY_KIND[node.kind].model_fields.values()}
        for node in PIPELINE
        for field in (*node.upstream, *([node.loads] if node.loads else []))
    )


def test_an_optional_node_is_asked_for_by_its_field():
    optional = {node.name for node in PIPELINE if node.optional}
    assert optional <= set(ExperimentSpec.model_fields)
    assert [node.name for node in nodes_of({})] == [n for n in NODE_NAMES if n not in optional]
    assert [node.name for node in nodes_of(dict.fromkeys(optional))] == list(NODE_NAMES)


def test_a_stage_is_made_again_with_all_that_rests_on_it_the_last_first():
    def rests_on(name, other):
        return name == other or any(rests_on(read, other) for read in NODES[name].reads)

    for first in NODE_NAMES:
        resting = [name for name in reversed(NODE_NAMES) if rests_on(name, first)]
        assert list(made_again_with(first)) == resting
    assert made_again_with("mapping") == (
        "drift", "trace", "damage", "scoring", "steering", "ablation", "evidence", "mapping",
    )  # fmt: skip
    assert made_again_with("steering") == ("drift", "trace", "damage", "scoring", "steering")
    with pytest.raises(KeyError):
        made_again_with("nothing")


def test_what_would_come_out_otherwise_is_made_again_only_where_it_is_named(monkeypatch):
    judged = replace(NODES["evidence"], reproducible=False)
    nodes = tuple(judged if node.name == "evidence" else node for node in PIPELINE)
    before = made_again_with("mapping")
    monkeypatch.setattr(pipeline, "PIPELINE", nodes)
    assert made_again_with("mapping") == tuple(name for name in before if name != "evidence")
    assert made_again_with("evidence") == ("evidence",)


@pytest.mark.parametrize("stage", CODE_REVISIONS)
def test_what_enters_the_digest_of_a_stage_stands_in_the_architecture(stage):
    assert f"\n| {stage} | " in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_what_a_node_reads_is_what_it_refers_to_and_sees_through_it():
    assert NODES["mapping"].reads == ("capture", "coarse", "fine")
    assert NODES["evidence"].reads == ("capture", "coarse", "fine", "mapping")
    assert NODES["steering"].reads == ("capture", "mapping")
    assert NODES["trace"].reads == ("capture", "coarse", "fine", "mapping", "steering")
