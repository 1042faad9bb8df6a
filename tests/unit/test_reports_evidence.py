"""Evidence on the page: prompts token by token, and what is said where there is none."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from loopscope.reports.bundle import export_bundle
from loopscope.reports.page.html import render_report
from loopscope.reports.page.sections import cells as section_cells
from loopscope.reports.page.sections import evidence as section
from loopscope.reports.page.sections.cells import cells
from loopscope.reports.page.sections.evidence import Evidence, Piece, Pushed, evidence
from loopscope.reports.page.sections.latents import latents
from loopscope.specs.artifacts.evidence import FIRINGS, SHOWN_PROMPTS
from loopscope.specs.artifacts.mapping import GATE, PAIRS
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS
from tests.unit.reports_case import build
from tests.unit.reports_payloads import HOSTILE


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return ExperimentView.load(*build(tmp_path_factory.mktemp("state"), evidence=True))


@pytest.fixture(scope="module")
def page(view):
    return render_report(view)


def test_every_latent_shows_the_prompts_that_the_evidence_chose_token_by_token(view):
    table = view.stage("evidence").table(SHOWN_PROMPTS)
    for one in latents(view).shown:
        own = table[(table["side"] == one.side) & (table["latent"] == one.latent)]
        assert len(one.top) == (own["chosen"] == "top").sum()
        assert len(one.others) == (own["chosen"] == "random").sum() > 0
        for row in (*one.top, *one.others):
            assert "".join(piece.text for piece in row.pieces) == row.text
            assert [p.level for p in row.pieces if p.level] or not row.activation


def test_the_strongest_colour_is_the_largest_activation_and_the_text_says_it_too(view):
    first = latents(view).shown[0]
    best = first.top[0]
    assert best.pieces[-1].level == section.LEVELS
    assert best.largest == pytest.approx(best.activation)
    assert best.strongest == best.text.split()[-1]
    halved = best.pieces[-2]
    assert 0 < halved.level < section.LEVELS


def test_the_numbers_under_the_tokens_are_those_of_the_artifact(view):
    table = view.stage("evidence").table(FIRINGS)
    tips = {p.tip for one in latents(view).shown for row in one.top for p in row.pieces if p.level}
    assert tips <= {f"{value:.3g}" for value in table["activation"]}


def test_controls_come_last_and_say_whose_they_are(view):
    control = latents(view).shown[-1]
    assert control.role.startswith("control of C-")
    assert (control.side, control.latent) in latents(view).places


def test_logit_lens_and_nearest_latents_are_there(view):
    for one in latents(view).shown:
        assert [p.logit for p in one.up] == [3.0, 2.0, 1.0]
        assert [p.logit for p in one.down] == [-3.0, -2.0, -1.0]
        assert len(one.nearest) == 1


def test_a_small_push_is_a_number_and_no_zero(page):
    numbers = [Pushed("x", by).number for by in (3.0, 0.0003, -0.0003)]
    assert [number.replace(MINUS, "-") for number in numbers] == ["+3.000", "+3e-04", "-3e-04"]
    lens = page[page.index("Logit lens") :]
    assert "+3.000" in lens[: lens.index("</ul>")]


def test_prompts_stand_first_so_that_a_narrow_screen_shows_them(page):
    table = page[page.index("Top prompts</caption>") :]
    assert re.findall(r"<th[^>]*>([^<]+)</th>", table)[0] == "prompt"
    assert table[table.index("<tbody>") :].index("td") == table[table.index("<tbody>") :].index(
        'td class="long tokens"'
    )


def test_hostile_tokens_are_text(page):
    assert HOSTILE not in page
    assert page.count("<script") == 2
    assert "&lt;script&gt;alert" in page[page.index('id="latents"') :]


def test_the_static_page_has_the_same_colours(view, page):
    static = render_report(view, explorable=False)
    levels = re.findall(r'class="(f\d)"', static)
    assert levels == re.findall(r'class="(f\d)"', page) and len(set(levels)) > 2


def test_a_page_without_evidence_says_which_line_asks_for_it(tmp_path):
    found = ExperimentView.load(*build(tmp_path))
    assert evidence(found).problem == section.ASKING
    page = render_report(found)
    assert "evidence: {}" in page and "loopscope run FILE" in page
    assert 'class="f9"' not in page


def test_a_part_of_the_spec_that_is_not_finished_says_that(view):
    problem = "InputsNotReady: waits for mapping"
    stage = replace(view.stage("evidence"), artifact=None, problem=problem)
    waiting = replace(view, stages={**view.stages, "evidence": stage})
    assert evidence(waiting).problem == problem
    assert all(row.pieces == [Piece(row.text)] for row in latents(waiting).shown[0].top)


def test_a_long_text_is_cut_around_its_strongest_token_and_shows_that():
    words = [f" w{n}" for n in range(300)]
    found = Evidence(
        problem="",
        chosen={("fine", 1): {"top": ["p"], "random": []}},
        _tokens={"p": words},
        _firings={("fine", 1, "p"): {200: 2.0, 3: 1.0}},
        _largest={("fine", 1): 2.0},
    )
    text = found.text("fine", 1, "p")
    shown = "".join(piece.text for piece in text.pieces)
    assert shown.startswith("… ") and shown.endswith(" …")
    assert " w199" in shown and " w2 " not in shown
    assert len(shown.split()) == section.TOKENS_SHOWN_MAX + 2
    assert text.strongest == "w199"


def test_a_bundle_holds_it_with_its_manifest(view, tmp_path):
    folder = export_bundle(view, tmp_path / "bundle")
    assert len(list((folder / "evidence").iterdir())) == 7
    manifest = json.loads((folder / "manifests/evidence.json").read_text())
    assert manifest["stage"] == "evidence"


def test_the_gate_at_other_counts_stands_beside_the_declared_one(page):
    table = page[page.index('id="sensitivity-gate"') :]
    table = table[: table.index("</table>")]
    assert "(declared)" in table and "NO-GO" in table and "or more" in table


def test_two_pages_of_one_view_are_equal_byte_by_byte(view, page):
    assert render_report(view) == page


# -- all cells of the heatmaps ----------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(view):
    anchors = [entry["coarse"] for entry in view.stage("mapping").document(GATE)["anchors"]]
    return cells(view, anchors)


def test_every_cell_of_the_heatmaps_is_known_and_kept_pairs_have_the_mapping_s_numbers(view, drawn):
    assert drawn.is_complete and not drawn.kept.all()
    assert not np.isnan(drawn.cosine).any()
    pairs = view.stage("mapping").table(PAIRS).set_index(["coarse", "fine"])
    for row, column in zip(*np.nonzero(drawn.kept), strict=True):
        own = pairs.loc[(drawn.anchors[row], drawn.fine[column])]
        assert drawn.cosine[row, column] == pytest.approx(own["cosine"])
        assert drawn.correlation[row, column] == pytest.approx(own["correlation"], nan_ok=True)


def test_correlations_made_again_are_those_of_the_mapping(view, drawn):
    """Of the kept pairs both are known: the page's own numbers are held against them."""
    pairs = view.stage("mapping").table(PAIRS)
    anchors, fine = sorted(set(pairs["coarse"])), sorted(set(pairs["fine"]))
    again = section_cells._correlations(view, anchors, fine)
    for row in pairs.itertuples():
        own = again[anchors.index(row.coarse), fine.index(row.fine)]
        assert own == pytest.approx(row.correlation, abs=1e-9, nan_ok=True)


def test_without_evidence_only_kept_pairs_have_a_cosine_and_all_a_correlation(tmp_path):
    view = ExperimentView.load(*build(tmp_path))
    anchors = [entry["coarse"] for entry in view.stage("mapping").document(GATE)["anchors"]]
    found = cells(view, anchors)
    assert not found.is_complete
    assert (np.isnan(found.cosine) == ~found.kept).all()
    silent = np.array(found.fine) == 3  # fires on no prompt
    assert (np.isnan(found.correlation) == silent[None]).all()
    assert "not among the kept pairs" in render_report(view)


def test_like_stands_by_like_whatever_the_order_was():
    rows = np.array([[0.9, 0.1], [0.0, 0.8], [0.88, 0.12], [0.05, 0.79]])
    order = section_cells.like_to_like(rows)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert section_cells.like_to_like(rows[:2]) == [0, 1]


def test_the_tree_joins_neighbours_in_the_order_of_the_picture_until_one_group_is_left():
    rows = np.array([[0.0], [10.0], [0.5], [11.0], [4.0]])
    ordered = rows[section_cells.like_to_like(rows)]
    found = section_cells.joins(rows)
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    assert [abs(float(ordered[one.first, 0] - ordered[one.last, 0])) for one in found][:2] == [
        0.5,
        1.0,
    ]
    assert (found[-1].first, found[-1].last, len(found)) == (0, 4, 4)
    assert all(one.left[0] < one.right[0] and one.left[1] <= one.distance for one in found)
    assert section_cells.joins(rows[:2]) == ()


def test_a_complete_heatmap_has_no_blank_cosine(page):
    figure = page[page.index('aria-label="Heatmap of decoder cosine"') :]
    assert 'class="blank"' not in figure[: figure.index("</svg>")]
