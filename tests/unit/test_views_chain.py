"""Chains of dictionaries: pairs that share one are joined, and their arms stand by level."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from loopscope.reports.page.html import render_sweep
from loopscope.reports.page.sections.chain import chain_section
from loopscope.reports.tables.describe import describe_text
from loopscope.specs.keys import Key
from loopscope.views.chain import CHILDREN, ONE_LATENT, chains
from loopscope.views.chain_levels import told_chains
from loopscope.views.chain_rows import fate_rows
from loopscope.views.experiment import ExperimentView
from loopscope.views.several import row_of
from loopscope.views.sweeps import Axis, AxisValue, GridCell, Sweep
from tests.unit.reports_case import build

SIZES = {"a": 128, "b": 256, "c": 512, "d": 1024}


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), splitting=True))


def pair(view, name, *, capture="one", spec=None):
    """The experiment as one on the two dictionaries that its name says."""
    ends = {
        side: {"dictionary": {"identity": one, "d_sae": SIZES[one]}}
        for side, one in zip(("coarse", "fine"), name, strict=True)
    }
    stages = dict(view.stages)
    stages["splitting"] = with_inputs(stages["splitting"], ends)
    captured = {"capture": {"contentDigest": capture}}
    stages["coarse"] = with_inputs(stages["coarse"], captured)
    if spec is not None:
        steering = stages["steering"]
        record = replace(steering.record, spec=steering.spec | spec)
        stages["steering"] = replace(steering, record=record)
    key = Key("Experiment", "default", f"pair-{name}")
    record = replace(view.experiment, key=key)
    return replace(view, experiment=record, stages=MappingProxyType(stages))


def with_inputs(stage, inputs):
    status = replace(stage.record.status, inputs=inputs)
    return replace(stage, record=replace(stage.record, status=status))


def test_pairs_are_joined_where_they_share_a_dictionary_in_any_order(view):
    (chain,) = chains([pair(view, name) for name in ("bc", "cd", "ab")])
    assert [level.identity for level in chain.levels] == ["a", "b", "c", "d"]
    assert [one.name for one in chain.pairs] == ["pair-ab", "pair-bc", "pair-cd"]
    assert chain.missing == []


def test_one_pair_is_no_chain_nor_are_pairs_on_other_prompts_or_in_a_circle(view):
    assert chains([pair(view, "ab")]) == []
    assert chains([pair(view, "ab"), pair(view, "bc", capture="other")]) == []
    assert chains([pair(view, "ab"), pair(view, "ba")]) == []
    assert chains([view]) == []


def test_a_fork_is_followed_along_the_pair_that_is_named_first(view):
    (chain,) = chains([pair(view, name) for name in ("ab", "bd", "bc")])
    assert [one.name for one in chain.pairs] == ["pair-ab", "pair-bc"]


def test_each_level_stands_with_its_arms_and_the_difference_to_the_first(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    first, *others = [one for one in chain.steered if one.strength == 0.25]
    assert [(one.level.identity, one.what) for one in (first, *others)] == [
        ("a", ONE_LATENT), ("b", CHILDREN), ("b", ONE_LATENT), ("c", CHILDREN),
    ]  # fmt: skip
    assert first.against is None
    again = others[1]
    assert (again.against, again.rate) == (0.0, first.rate), "the same texts in this made-up case"
    fine = view.stage("steering").table_named("arms.parquet").set_index(["arm", "strength"])
    expected = fine.loc[("fine", 0.25), "concept_rate"] - first.rate
    assert others[0].against == pytest.approx(expected)
    assert others[0].low <= others[0].against <= others[0].high


def test_levels_that_were_steered_by_other_rules_are_not_compared(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc", spec={"maxNewTokens": 99})])
    known = {(one.experiment, one.what): one.against for one in chain.steered}
    assert known["pair-bc", ONE_LATENT] is None
    assert known["pair-ab", CHILDREN] is not None


def test_a_latent_in_between_has_two_words_on_the_page(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    section = chain_section(chain)
    assert section.words == "128 latents → 256 latents → 512 latents"
    assert [row[:3] for row in section.fates] == [
        ["128 latents", "256 latents", "1 lost, 1 split"],
        ["256 latents", "512 latents", "1 lost, 1 split"],
    ]
    assert "2 part, lost" in section.figure and "4 born" in section.figure


def test_the_page_of_a_sweep_has_its_chain(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    row = row_of(view.experiment)
    cell = GridCell("pair-ab", ("ab",), "Ready", "", None, row)
    sweep = Sweep("resolution", (Axis("pair", (AxisValue("ab", ()),)),), (cell,), None)
    page = render_sweep(sweep, [chain])
    assert "Resolution: 128 latents → 256 latents → 512 latents" in page
    assert page.count('<th scope="row">256 latents</th>') == 1 + 2 * 3, "one of fates, two at three"
    assert "Resolution:" not in render_sweep(sweep)


def test_the_statuses_of_a_chain_tell_the_fates_that_its_graphs_do(view):
    pairs = [pair(view, "ab"), pair(view, "bc")]
    (chain,) = chains(pairs)
    (told,) = told_chains([one for view in pairs for one in owned(view)])
    assert told.words == chain.words
    assert told.fates == fate_rows(chain)
    assert told.missing == ()


def test_a_graph_that_is_not_there_yet_is_named_with_the_reason(view):
    first, (graph, coarse) = owned(pair(view, "ab")), owned(pair(view, "bc"))
    waiting = replace(graph.status, observed_generation=graph.generation - 1)
    (told,) = told_chains([*first, replace(graph, status=waiting), coarse])
    assert [row[:2] for row in told.fates] == [["128 latents", "256 latents"]]
    (why,) = told.missing
    assert why.startswith(f"{graph.key}: ")


def test_a_sweep_is_described_with_its_chain(view):
    (chain,) = chains([pair(view, "ab"), pair(view, "bc")])
    text = describe_text(view.experiment, (), (), None, now=0.0, chained=[chain])
    lines = text.splitlines()
    at = lines.index("Chain: 128 latents → 256 latents → 512 latents")
    assert lines[at + 1].split()[:2] == ["FROM", "TO"]
    assert "1 lost, 1 split" in lines[at + 2] and "512 latents" in lines[at + 3]
    assert "LESS THE FIRST ROW" in lines[at + 4]


def owned(view):
    """The Splitting of a pair and its coarse Decomposition, by names of their own."""
    name = f"{view.name}-coarse"
    graph, coarse = view.stage("splitting").record, view.stage("coarse").record
    inputs = {**graph.status.inputs}
    inputs["coarse"] = {**inputs["coarse"], "object": name}
    return [
        replace(
            graph,
            key=Key("Splitting", "default", f"{view.name}-splitting"),
            status=replace(graph.status, inputs=inputs),
        ),
        replace(coarse, key=Key("Decomposition", "default", name)),
    ]
