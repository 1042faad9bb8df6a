from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopscope.reports.page.html import render_report
from loopscope.reports.page.samples import marked
from loopscope.reports.page.sections.latents import latents
from loopscope.reports.page.shift_table import shown_token
from loopscope.reports.page.story import assay_sentence
from loopscope.reports.page.writing import write_report
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.artifacts.decomposition import PROMPTS
from loopscope.specs.keys import Key
from loopscope.specs.lexicon import lexicon_pattern
from loopscope.specs.status import Condition, Status
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS
from tests.unit.reports_case import NOW, build, set_status
from tests.unit.reports_payloads import ASSAY, HOSTILE, Payloads, Sizes, document


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return build(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def page(case):
    return render_report(ExperimentView.load(*case))


def test_the_first_prompts_are_shown_token_by_token_where_a_capture_has_them(
    page, tmp_path, monkeypatch
):
    tokens = [
        {"text": "<|im_start|>", "part": "bos", "read": False},
        {"text": HOSTILE, "part": "text", "read": False},
        {"text": "?", "part": "text", "read": True},
    ]
    plain = Payloads._capture

    def in_a_template(self, stage, out):
        document(out / "tokens.json", {"prompts": [{"prompt_id": "target-0000", "tokens": tokens}]})
        return plain(self, stage, out)

    monkeypatch.setattr(Payloads, "_capture", in_a_template)
    shown = render_report(ExperimentView.load(*build(tmp_path)))
    assert '<span class="soft">&lt;|im_start|&gt;</span>' in shown and "<mark>?</mark>" in shown
    assert HOSTILE not in shown and '<ul class="tokens">' not in page


def scripts(page: str) -> list[tuple[str, str]]:
    """Return attributes and content of every script element."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def policy(page: str) -> dict[str, list[str]]:
    (content,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = (rule.split() for rule in html.unescape(content).split(";"))
    return {name: values for name, *values in rules}


def test_one_script_may_run_and_the_policy_names_its_hash(page):
    (attributes, _), (none, script) = scripts(page)
    assert attributes == ' type="application/json" id="explore-data"', "data, which never runs"
    assert none == ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = policy(page)
    assert rules["script-src"] == [f"'sha256-{digest}'"]
    assert rules["default-src"] == ["'none'"]
    assert set(rules) == {
        *("default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"),
        "require-trusted-types-for",
    }
    assert rules["img-src"] == ["data:"]


def test_the_script_computes_no_code_and_asks_nothing_of_a_network(page):
    script = scripts(page)[1][1]
    for word in ("eval", "Function(", "fetch", "XMLHttpRequest", "innerHTML", "import("):
        assert word not in script
    namespace = "http://www.w3.org/2000/svg"
    assert re.findall(r"\w+://[^\"]*", script) == [namespace]


def test_the_static_page_says_the_same_without_any_script(case, page):
    static = render_report(ExperimentView.load(*case), explorable=False)
    assert scripts(static) == []
    assert "script-src" not in policy(static)
    assert policy(static)["default-src"] == ["'none'"]
    body = page[page.index("<body>") : page.index("<script")]
    assert body.rstrip() == static[static.index("<body>") : static.index("</body>")].rstrip()


def test_every_place_in_the_page_that_a_link_names_is_there(page):
    elements = parsed(page)
    names = {a["id"] for _, a in elements.found if "id" in a}
    links = {a["href"][1:] for tag, a in elements.found if tag == "a"}
    assert links <= names
    assert {link for link in links if link.startswith("latent=")}


def test_the_page_says_what_a_latent_fires_on(case, page):
    view = ExperimentView.load(*case)
    shown = latents(view)
    first = shown.shown[0]
    assert first.role.startswith("anchor")
    strengths = [fired.activation for fired in first.top]
    assert strengths == sorted(strengths, reverse=True)
    assert first.top[0].share == 1.0
    matrix = Payloads(Sizes(), dict(view.experiment.spec)).coarse[:, first.latent]
    assert strengths[0] == pytest.approx(float(matrix.max()))
    fires = {condition: n for condition, n, _ in first.fires}
    assert sum(fires.values()) == int((matrix > 0).sum())
    assert f'id="latent=coarse/{first.latent}"' in page


def test_prompts_on_which_both_fire_are_those_with_the_largest_product(case):
    view = ExperimentView.load(*case)
    payloads = Payloads(Sizes(), dict(view.experiment.spec))
    texts = view.prompts.table(PROMPTS)["text"].tolist()
    for coarse, fine, found in latents(view).both:
        together = payloads.coarse[:, coarse] * payloads.fine[:, fine]
        assert len(found) == min(3, int((together > 0).sum()))
        if found:
            assert together[texts.index(found[0])] == together.max()


def test_the_page_loads_nothing_and_runs_no_attribute(page):
    elements = parsed(page)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"img", "iframe", "link", "object", "embed", "form", "base"}
    for _, attributes in elements.found:
        assert not {name for name in attributes if name.startswith("on")} - {"on"}
        assert not attributes.get("href", "#").startswith(("http", "//", "javascript"))
        assert "src" not in attributes
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_prompts_openings_and_samples_show_as_text(page):
    assert len(scripts(page)) == page.count("<script") == 2
    assert "<img" not in page
    elements = parsed(page)
    shown = "".join(elements.text)
    assert f"Paris and {HOSTILE}" in shown
    assert shown.count(HOSTILE) > 3


def test_the_same_state_gives_the_same_bytes(case, page):
    assert render_report(ExperimentView.load(*case)) == page


def test_the_headline_gives_verdicts_with_numbers_and_cautions(page):
    text = " ".join("".join(parsed(page).text).split())
    assert "GO" in text
    assert "Inconclusive" in text
    assert (
        "Multi minus fine: the share of texts with a word of the lexicon, averaged over "
        "strengths, differs by -0.05 (95 % interval [-0.25, +0.15], 3 openings)"
        in text.replace(MINUS, "-")
    )
    assert "about 126 openings would detect 0.15" in text
    assert "18.8 % of all coarse latents pass the same rule" in text
    assert "Q4_K_M, dequantised" in text
    assert "Inconclusive is not the same as no difference" in text


def test_the_page_says_how_many_active_latents_lie_within_rounding_of_the_edge(page):
    cells = [text.strip() for text in parsed(page).text]
    assert "3 of 400 (0.75 %)" in cells
    assert "not recorded" in cells, "the fine side was made before this was counted"


def test_every_section_and_picture_is_there(page):
    sections = [a["id"] for tag, a in parsed(page).found if tag == "section"]
    assert sections[:4] == ["headline", "status", "anchors", "mapping"]
    assert sections[4:8] == ["gate", "splitting", "latents", "navigator"]
    assert sections[8:] == [
        "steering", "shifts", "samples", "sensitivity", "ablation", "drift", "provenance",
    ]  # fmt: skip
    densities = page.count("<figcaption>Density</figcaption>")
    assert densities == page.count('<details id="latent=')
    # first screen, heatmaps, histograms, graph, scatter, arms, planes, looks
    assert page.count("<svg") == 1 + 2 + 3 + 1 + 1 + 1 + 2 + 1 + densities
    assert "geometric-only: 4 pairs" in page
    assert "0.24" in page


def test_the_page_says_whether_arms_add_or_clamp(tmp_path, page):
    assert "Each arm adds its unit vector" in page
    assert "method clamp" not in page
    case = build(tmp_path, steering_rules={"method": "clamp"})
    clamped = render_report(ExperimentView.load(*case))
    assert "(method clamp)" in clamped
    assert "Each arm adds its unit vector" not in clamped


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("nextTokenKl", "changes the next token on neutral text by the strength in nats"),
        ("fluencyLoss", "makes neutral text less likely by the strength in nats per token"),
        ("residualNorm", "the strength times median norm of h (residualNorm)"),
    ],
)
def test_the_page_says_what_a_strength_is(tmp_path, unit, words):
    case = build(tmp_path, steering_rules={"strengthUnit": unit})
    assert words in render_report(ExperimentView.load(*case))


def test_what_to_type_stands_as_code_in_the_reason_why_a_section_is_empty(page):
    assert "Add the line <code>drift: {}</code> to the experiment&#39;s spec" in page
    assert "once more (<code>loopscope run FILE</code>)" in page


def test_a_token_of_white_space_alone_can_be_seen():
    assert [shown_token(text) for text in (" ", "\n\n", " the", "\u200b")] == [
        "\N{OPEN BOX}", "\\n\\n", " the", "\u200b",
    ]  # fmt: skip


def test_pictures_and_tables_are_accessible(page):
    elements = parsed(page)
    pictures = [a for tag, a in elements.found if tag == "svg"]
    assert all(a.get("aria-label") and a["role"] == "img" for a in pictures)
    heads = [a for tag, a in elements.found if tag == "th"]
    assert all(a.get("scope") in ("row", "col") for a in heads)
    identifiers = [a["id"] for _, a in elements.found if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    named = {name for _, a in elements.found if (name := a.get("aria-labelledby"))}
    assert named <= set(identifiers)


def test_every_mark_of_the_pictures_has_finite_coordinates(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert pictures
    assert not any(re.search(r'="[^"]*\b(nan|inf)\b', picture) for picture in pictures)


def test_a_stage_that_is_not_ready_says_so_and_why(tmp_path):
    page = render_report(ExperimentView.load(*build(tmp_path, stages=("capture", "coarse"))))
    text = " ".join("".join(parsed(page).text).split())
    assert "Not available. JobRunning: mapping job 4 is running" in text
    assert "Not available. JobRunning: fine job 4 is running" in text
    assert "C-0" in text
    assert page.count("<svg") == 1 and "No directions are drawn" in text  # the prompts' plane


def test_an_experiment_nothing_has_looked_at_yet_has_a_report(tmp_path):
    page = render_report(ExperimentView.load(*build(tmp_path, stages=())))
    assert "JobRunning: capture job 4 is running" in page


def test_without_steering_the_report_ends_at_the_mapping(tmp_path):
    page = render_report(ExperimentView.load(*build(tmp_path, steering=False)))
    assert "the spec does not ask for it" in page
    assert page.count("<svg") == 10 + page.count("<figcaption>Density</figcaption>")


def test_a_steering_that_the_gate_forbade_is_an_answer(tmp_path):
    state, key = build(tmp_path, stages=("capture", "coarse", "fine", "mapping"))
    message = "steering did not run: the gate says NO-GO and its policy is enforce"
    forbidden = Condition("Ready", "True", "GateNoGo", message, 1, NOW)
    steering = Key("Steering", "default", "france-steering")
    set_status(state, steering, Status(1, (forbidden,), {"verdict": "NotTestable"}))
    view = ExperimentView.load(state, key)
    assert view.unfinished == []
    page = render_report(view)
    assert "NotTestable" in page
    assert f"GateNoGo: {message}" in page


def test_an_edit_that_was_not_acted_on_yet_is_announced(tmp_path):
    state, key = build(tmp_path)
    with state.database.write() as connection:
        record = objects.get(connection, key)
        spec = {**record.spec, "hook": "blocks.3.hook_resid_pre"}
        objects.apply(connection, key, spec, now=NOW + 500)
    page = render_report(ExperimentView.load(state, key))
    assert "The spec was edited." in page


def test_a_damaged_artifact_is_never_shown(tmp_path):
    state, key = build(tmp_path)
    path = ExperimentView.load(state, key).stage("fine").path("features.parquet")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    view = ExperimentView.load(state, key)
    assert not view.stage("fine").available
    assert "features.parquet: sha256 differs" in view.stage("fine").problem
    assert "ArtifactDamaged" in render_report(view)


def test_an_artifact_of_another_version_is_not_shown_with_columns_it_does_not_have(
    tmp_path, monkeypatch
):
    case = build(tmp_path)
    monkeypatch.setitem(CODE_REVISIONS, "mapping", CODE_REVISIONS["mapping"] + 1)
    page = render_report(ExperimentView.load(*case))
    assert "made by another version of Loopscope" in page


def test_a_mapping_of_an_older_decomposition_is_outdated(tmp_path):
    state, key = build(tmp_path)
    mapping = Key("Mapping", "default", "france-mapping")
    with state.database.read() as connection:
        record = objects.get(connection, mapping)
    inputs = {**record.status.inputs, "fine": {"contentDigest": "0" * 64}}
    old = record.status
    set_status(state, mapping, Status(1, old.conditions, old.summary, inputs, old.artifact))
    view = ExperimentView.load(state, key)
    assert view.stage("mapping").problem.startswith("Outdated: it was made from an earlier fine")


def test_an_unknown_experiment_is_a_key_error(tmp_path):
    state, _ = build(tmp_path, stages=())
    with pytest.raises(KeyError, match="experiment/paris"):
        ExperimentView.load(state, Key("Experiment", "default", "paris"))


def test_many_latents_keep_the_page_small(tmp_path):
    sizes = Sizes(prompts=30, coarse=256, fine=2048, openings=5)
    page = render_report(ExperimentView.load(*build(tmp_path, sizes=sizes)))
    assert len(page.encode()) < 1_000_000


def test_the_written_report_replaces_the_old_one(case, tmp_path):
    path = tmp_path / "reports" / "report.html"
    path.parent.mkdir()
    view = ExperimentView.load(*case)
    assert write_report(view, path) == path
    write_report(view, path)
    assert path.read_text() == render_report(view)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_hold_the_report_is_refused_and_left_clean(case, tmp_path):
    view = ExperimentView.load(*case)
    for place in (tmp_path / "no such folder" / "report.html", tmp_path):
        with pytest.raises(TerminalFailure, match="BadDestination"):
            write_report(view, place)
    assert not [p for p in tmp_path.parent.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("text", "opening", "expected"),
    [
        ("in Paris, France", "", "in <mark>Paris</mark>, <mark>France</mark>"),
        ("Parisian PARIS", "", "Parisian <mark>PARIS</mark>"),
        ("the  Côte \n d'Azur", "", "the  <mark>Côte \n d&#39;Azur</mark>"),
        ("Paris and Paris", "the Comte-de", "Paris and <mark>Paris</mark>"),
        (" Paris", "the town of", " <mark>Paris</mark>"),
        ("<b>Paris</b>", "", "&lt;b&gt;<mark>Paris</mark>&lt;/b&gt;"),
    ],
)
def test_whole_words_of_the_lexicon_are_marked(text, opening, expected):
    pattern = lexicon_pattern(["Paris", "France", "Côte d'Azur"])
    assert marked(text, pattern, opening) == expected


@pytest.mark.parametrize(
    ("shared", "steered", "expected"),
    [
        (0, (2, 8), "<i>in</i><i> <mark>Paris</mark></i>, <mark>France</mark>"),
        (0, (2, 5, 16), "<i>in</i><i> <mark>Pa</mark></i><i><mark>ris</mark>, "
         "<mark>France</mark></i>"),
        (0, (2, 2, 2), "<i>in</i> <mark>Paris</mark>, <mark>France</mark>"),
        (2, (2, 8), '<span class="same"><i>in</i></span><i> <mark>Paris</mark></i>, '
         "<mark>France</mark>"),
        (4, (2, 8), '<span class="same"><i>in</i></span><i> <mark>Paris</mark></i>, '
         "<mark>France</mark>"),
        (16, (8,), '<span class="same"><i>in <mark>Paris</mark></i>, <mark>France</mark></span>'),
        (3, (), '<span class="same">in </span><mark>Paris</mark>, <mark>France</mark>'),
    ],
)  # fmt: skip
def test_each_steered_token_is_an_element_of_its_own(shared, steered, expected):
    pattern = lexicon_pattern(["Paris", "France"])
    assert marked("in Paris, France", pattern, shared=shared, steered=steered) == expected


def test_no_template_switches_escaping_off():
    for path in (Path(__file__).parents[2] / "reports" / "page" / "templates").glob("*.*"):
        assert "|safe" not in path.read_text().replace(" ", "")
        assert "autoescape" not in path.read_text()


def words_of(page):
    return " ".join("".join(parsed(page).text).split()).replace(MINUS, "-")


def rows_of(page):
    """Return every row of every table as one string, its cells separated by bars."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    cells = [[words_of(cell) for cell in re.split(r"</t[hd]>", row)[:-1]] for row in rows]
    return [" | ".join(row) for row in cells]


def test_secondary_outcomes_stand_beside_the_verdict_with_their_corrected_p(page):
    rows = rows_of(page)
    assert "outcome | contrast | estimate | 95 % interval | p (Holm)" in rows
    assert "log perplexity | multi - fine | +0.020 | [-0.100, +0.120] | 0.900" in rows


def test_the_page_says_whether_the_run_could_have_shown_a_difference(page):
    assert (
        "Assay: fine beats unsteered by +0.70 [+0.40, +0.95]; headroom: fine alone reaches 0.75, "
        "and up to 0.85 is low enough for a difference to be seen." in words_of(page)
    )
    rows = rows_of(page)
    assert "multi - coarse | +0.700 | [+0.400, +0.950] | 3 | <0.001" in rows
    assert any("| interval | intact | perplexity |" in row for row in rows)
    assert (
        "power of the selection: whether these prompts could have shown a latent at all | "
        "a perfect latent has p 2e-09; 1 perfect one among the 16 tested would pass, and the "
        "selection keeps 5 | without a candidate, NO-GO needs at least 9 prompts of each condition"
        in rows
    )


def test_the_page_says_how_equal_the_budgets_are_and_what_few_texts_cost(page):
    rows = rows_of(page)
    assert "multi - coarse | 0.090 | 0.500 | 0.045" in rows
    assert (
        "The budgets rest on 4 neutral texts (32 are advised), so they are less equal than they "
        "look; the intervals of the contrasts carry that error by a standard deviation of 0.045."
        in words_of(page)
    )


def test_the_page_puts_the_arms_beside_the_system_prompt_at_its_own_kl(page):
    rows = rows_of(page)
    assert "coarse | 40 % | -0.200 | [-0.500, +0.100] |" in [row.strip() for row in rows]
    assert any("not comparable: it was scored elsewhere" in row for row in rows)
    assert "a placebo of the same length by 0.310" in words_of(page)


def test_a_doubt_about_the_assay_stands_in_place_of_its_numbers():
    assay = {**ASSAY, "doubt": "no headroom: fine alone reaches 0.95"}
    assert assay_sentence({"assay": assay}) == "Assay: No headroom: fine alone reaches 0.95."


def test_what_was_made_before_these_rules_shows_none_of_them(tmp_path, monkeypatch):
    write = Payloads.write
    later = ["assay", "anchor", "intact", "budget", "system_prompt"]

    def earlier(payloads, stage, out):
        metrics = write(payloads, stage, out)
        for name, keys in (("gate.json", ["selection"]), ("verdict.json", later)):
            if (out / name).exists():
                kept = json.loads((out / name).read_text())
                document(out / name, {key: kept[key] for key in kept if key not in keys})
        if (out / "gate.json").exists():
            gate = json.loads((out / "gate.json").read_text())
            kept = ("dictionaries", "p", "median_count", "max_count")
            gate["control"] = {name: gate["control"][name] for name in kept}
            document(out / "gate.json", gate)
            pairs = pq.read_table(out / "pairs.parquet")
            new = ["p_smallest", "p_same_cosine", "same_cosine_pairs", "edge"]
            pq.write_table(pairs.drop_columns(new), out / "pairs.parquet")
        if (out / "arms.parquet").exists():
            arms = pq.read_table(out / "arms.parquet")
            new = ["intact", "generated_tokens", "steered_tokens", "steered_opening_tokens"]
            arms = arms.drop_columns(new)
            pq.write_table(arms, out / "arms.parquet")
        return metrics

    monkeypatch.setattr(Payloads, "write", earlier)
    text = words_of(render_report(ExperimentView.load(*build(tmp_path))))
    assert "Verdict: Inconclusive" in text
    for absent in (
        "Assay", "intact", "power of the selection", "but the last", "budgets rest", "placebo",
        "Error of the equal", "beside the system", "drawn after a steered",
    ):  # fmt: skip
        assert absent not in text
    assert "99 dictionaries of random directions" in text


def test_the_page_counts_what_was_steered_of_what_was_generated(page):
    text = words_of(page)
    assert "generated tokens that were drawn after a steered token" in text
    assert "1,200 of 1,240" in text and "0 of 1,240" in text
    assert "Steered: " in text and "on neutral text all tokens are" not in text


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ("generated", "a generated one is drawn after, from the last of the opening on"),
        ({"token": "e"}, "Steered: the token that ends 'e' in an opening, and no other"),
        ({"index": -1}, "Steered: the token with the index -1 of an opening, and no other"),
    ],
)
def test_the_page_says_which_tokens_are_steered(tmp_path, positions, words):
    view = ExperimentView.load(*build(tmp_path, steering_rules={"positions": positions}))
    assert f"{words}; on neutral text all tokens are." in words_of(render_report(view))


def test_the_page_says_where_transcoders_write(tmp_path, page):
    assert "adds its unit vector at the hook" in page and "residual norm at" not in page
    changes = {"hook": "blocks.3.mlp.hook_in", "writeHook": "blocks.3.hook_mlp_out"}
    text = words_of(render_report(ExperimentView.load(*build(tmp_path, changes=changes))))
    assert "at blocks.3.mlp.hook_in, written at blocks.3.hook_mlp_out, of google" in text
    assert "adds its unit vector at the write hook" in text
    assert "Median residual norm at the write hook" in text


def test_anchors_that_are_fine_latents_themselves_are_cautioned_against(
    tmp_path, page, monkeypatch
):
    assert "as where one dictionary is a part of the other" not in page
    mapping = Payloads._mapping

    def of_a_prefix(self, stage, out):
        self.cosines[self.candidates[0], 5] = 1.0
        return mapping(self, stage, out)

    monkeypatch.setattr(Payloads, "_mapping", of_a_prefix)
    text = words_of(render_report(ExperimentView.load(*build(tmp_path))))
    assert "1 of 3 anchors have a fine latent with cosine 1" in text


def test_the_page_names_each_control_and_says_which_decide(page):
    text = words_of(page)
    assert (
        "99 dictionaries of random rows that spread as the fine decoder's do "
        "(effective dimensions 5)p 0.010 (median 0, largest 1)p at most 0.050"
    ) in text
    assert (
        "99 dictionaries whose activations were dealt to other decoder rows"
        "p 0.300 (median 0, largest 1)reported, decides nothing"
    ) in text


def test_an_edge_is_said_to_be_not_independent_beside_what_pairs_of_its_cosine_do(page):
    text = words_of(page)
    assert "cosine0.0020.0040.250not independent" in text
    assert "That is not parent and child" in text


def test_a_candidate_that_fires_on_hard_negatives_is_cautioned_against(tmp_path, monkeypatch):
    write = Payloads.write

    def with_hard_negatives(payloads, stage, out):
        metrics = write(payloads, stage, out)
        if (out / "features.parquet").exists():
            table = pq.read_table(out / "features.parquet")
            for name, value in (("mean_activation", 1.0), ("firing_rate", 0.9), ("selectivity", 0)):
                column = pa.array([float(value)] * len(table))
                table = table.append_column(f"{name}_hard_negative", column)
            pq.write_table(table, out / "features.parquet")
        return metrics

    monkeypatch.setattr(Payloads, "write", with_hard_negatives)
    text = words_of(render_report(ExperimentView.load(*build(tmp_path))))
    assert "fires on 90% of the hard negatives, selectivity against them 0.00" in text
