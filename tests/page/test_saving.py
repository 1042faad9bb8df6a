"""Tables and figures saved as Parquet by the page itself, read by pyarrow."""

import io

import numpy as np
import pandas
import pyarrow.parquet
import pytest

from loopscope.specs.artifacts.mapping import PAIRS
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.views.numbers import MISSING
from tests.page.test_exploring import Opened


@pytest.fixture
def opened(chromium, place):
    found = Opened(chromium, place)
    yield found
    found.page.close()


def saved(opened, button, path):
    with opened.page.expect_download() as waiting:
        button.click()
    assert waiting.value.suggested_filename.endswith(".parquet")
    waiting.value.save_as(path)
    return pyarrow.parquet.read_table(path)


def test_kept_pairs_are_saved_with_their_types_and_all_digits(opened, view, tmp_path):
    pairs = view.stage("mapping").table(PAIRS)
    figure = opened.page.locator("#mapping figure", has=opened.page.locator("svg circle")).last
    table = saved(opened, figure.locator("button", has_text="Parquet"), tmp_path / "p.parquet")
    types = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    assert (types["coarse"], types["cosine"], types["reading"], types["child"]) == (
        "int64", "double", "string", "bool",
    )  # fmt: skip
    found = table.to_pandas()
    assert found["coarse"].tolist() == pairs["coarse"].tolist()
    assert found["child"].tolist() == pairs["child"].tolist()
    correlation = found["correlation"].to_numpy(dtype=np.float64)
    assert np.isnan(correlation).any()
    np.testing.assert_allclose(correlation, pairs["correlation"])
    assert found["cosine"].tolist() == pytest.approx(pairs["cosine"].tolist())


def test_a_table_is_saved_with_numbers_where_all_its_words_are_numbers(opened, tmp_path):
    region = opened.page.locator("#anchors .scroll").first
    button = opened.page.locator("#anchors .save button", has_text="Parquet").first
    table = saved(opened, button, tmp_path / "t.parquet").to_pandas()
    heads = [cell.strip() for cell in region.locator("thead th").all_inner_texts()]
    assert len(table) == region.locator("tbody tr").count()
    assert [name.replace("\n", "") for name in heads] == list(table.columns)
    numeric = table.select_dtypes("number").columns
    assert len(numeric) > 2 and "latent" not in numeric
    for name in numeric:
        cells = region.locator(f"tbody tr > :nth-child({list(table.columns).index(name) + 1})")
        words = [text.replace("\u2212", "-").replace(",", "") for text in cells.all_inner_texts()]
        shown = [np.nan if text == MISSING else float(text) for text in words]
        np.testing.assert_array_equal(table[name].to_numpy(dtype=np.float64), shown)


def test_a_saved_table_says_where_it_is_from(opened, view, tmp_path):
    figure = opened.page.locator("#mapping figure", has=opened.page.locator("svg circle")).last
    saved(opened, figure.locator("button", has_text="Parquet"), tmp_path / "p.parquet")
    attributes = pandas.read_parquet(tmp_path / "p.parquet").attrs
    assert (attributes["experiment"], attributes["namespace"]) == ("france", "default")
    assert attributes["digests"] == {n: s.artifact.digest for n, s in view.stages.items()}
    assert attributes["units"]["cosine"] == "\N{MINUS SIGN}1 to 1"


def test_a_heatmap_is_saved_cell_by_cell(opened, tmp_path):
    figure = opened.page.locator("#mapping figure", has=opened.page.locator("svg rect.heat")).first
    table = saved(opened, figure.locator("button", has_text="Parquet"), tmp_path / "h.parquet")
    marks = figure.locator("svg [data-value]")
    values = marks.evaluate_all("marks => marks.map((mark) => mark.dataset.value)")
    assert table.column_names == ["coarse", "fine", "value"]
    assert table["value"].to_pylist() == [float(one) if one else None for one in values]
    assert str(table.schema.types[0]) == "int64"


def test_a_heading_between_rows_is_saved_as_a_column(opened, tmp_path):
    region = opened.page.locator("#latents .scroll").first
    button = opened.page.locator("#latents .save button", has_text="Parquet").first
    table = saved(opened, button, tmp_path / "t.parquet").to_pandas()
    bodies = [body.locator("tr").count() for body in region.locator("tbody").all()]
    heading = region.locator("thead").nth(1).inner_text().strip()
    assert table["part"].tolist() == ["Top prompts"] * bodies[0] + [heading] * bodies[1]
    assert table["prompt"].notna().all() and bodies[1]


def test_every_table_has_the_same_numbers_as_csv_and_as_parquet(opened, view):
    tables = [[bytes(one) for one in pair] for pair in opened.page.evaluate(SAVED)]
    assert len(tables) == opened.count(".scroll") > 10
    estimates = []
    for text, parquet in tables:
        found = pandas.read_csv(io.BytesIO(text))
        other = pyarrow.parquet.read_table(io.BytesIO(parquet)).to_pandas()
        assert list(found.columns) == list(other.columns)
        for name in other.select_dtypes("number").columns:
            np.testing.assert_array_equal(found[name].to_numpy(np.float64), other[name])
        if list(found.columns[:2]) == ["contrast", "estimate"]:
            estimates.append(found["estimate"].tolist())
    verdict = view.stage("steering").document(VERDICT)
    wanted = [one["estimate"] for one in verdict["contrasts"]]
    assert estimates[0] == pytest.approx(wanted, abs=5e-4) and min(wanted) < 0 < max(wanted)


SAVED = """async () => {
  const kept = [];
  URL.createObjectURL = (blob) => (kept.push(blob), "blob:kept");
  HTMLAnchorElement.prototype.click = () => {};
  for (const region of document.querySelectorAll(".scroll")) {
    const line = region.nextElementSibling;
    for (const button of line.querySelectorAll("button")) button.click();
  }
  const read = async (blob) => [...new Uint8Array(await blob.arrayBuffer())];
  const bytes = await Promise.all(kept.map(read));
  return bytes.flatMap((_, at) => (at % 2 ? [] : [[bytes[at], bytes[at + 1]]]));
}"""
"""Presses all buttons beside tables, and returns what they would save."""


def test_no_table_has_two_columns_of_one_name(opened):
    tables = opened.page.locator(".scroll table")
    heads = tables.evaluate_all(
        "found => found.map((one) => [...one.tHead.rows[0].cells].map((cell) => cell.textContent))"
    )
    assert len(heads) > 10
    assert [head for head in heads if len({*head}) < len(head)] == []
