"""A sweep taken elsewhere: its grid, its page and the bundle of each cell, all or nothing."""

import csv
import html
import json

from sqlalchemy import func, update

from loopscope.reports.page.policy import STATIC_POLICY
from loopscope.specs.keys import Key
from loopscope.state.db import objects, tables
from tests.unit.reports_case import build

STAGES = ("capture", "coarse", "fine", "mapping")


def swept(path, matrix, **options):
    """A sweep s whose cell s-low is an experiment with artifacts."""
    state, _ = build(path, **options)
    o, key = tables.objects, Key("Experiment", "default", "s")
    with state.database.write() as connection:
        objects.apply(connection, key, {"matrix": matrix}, now=0.0)
        uid = objects.get(connection, key).uid
        cell = o.c.name == "france"
        connection.execute(update(o).where(cell).values(owner_uid=uid, owner_kind="Experiment"))
        connection.execute(
            update(o).where(o.c.name.startswith("france")).values(
                name=func.replace(o.c.name, "france", "s-low"),
                owner_name=func.replace(func.coalesce(o.c.owner_name, "s"), "france", "s-low"),
            )
        )  # fmt: skip


def test_it_holds_what_the_report_shows_and_the_bundle_that_each_cell_has_alone(
    tmp_path, loopscope
):
    swept(tmp_path, {"cosine": {"low": {}}})
    code, out, err = loopscope("export", "s", tmp_path / "out")
    assert (code, err) == (0, "") and str(tmp_path / "out") in out
    found = {one.relative_to(tmp_path / "out").as_posix() for one in (tmp_path / "out").iterdir()}
    assert found == {"cells.csv", "sweep.json", "report.html", "report-static.html", "cells"}
    loopscope("report", "s", "-o", tmp_path / "s.html")
    assert (tmp_path / "out/report.html").read_bytes() == (tmp_path / "s.html").read_bytes()
    (row,) = csv.DictReader((tmp_path / "out/cells.csv").open())
    (cell,) = json.loads((tmp_path / "out/sweep.json").read_text())["cells"]
    assert (row["name"], row["cosine"], row["state"]) == ("s-low", "low", "Ready")
    assert (row["gate"], row["verdict"]) == (cell["gate"] or "", cell["verdict"] or "")
    loopscope("export", "s-low", tmp_path / "alone")
    names = {one.relative_to(tmp_path / "alone") for one in (tmp_path / "alone").rglob("*")}
    for name in names:
        if (tmp_path / "alone" / name).is_file():
            same = tmp_path / "out/cells/s-low" / name
            assert same.read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_its_static_report_has_the_same_rows_and_no_script_and_both_are_the_same_again(
    tmp_path, loopscope
):
    swept(tmp_path, {"cosine": {"low": {}}})
    for name in ("one", "two"):
        assert loopscope("export", "s", tmp_path / name)[0] == 0
    explorable = (tmp_path / "one/report.html").read_text()
    static = (tmp_path / "one/report-static.html").read_text()
    assert "<script" in explorable and "<script" not in static
    assert f'content="{STATIC_POLICY}"' in html.unescape(static)
    assert table(static) == table(explorable)
    for name in ("report.html", "report-static.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def table(page):
    return page[page.index('<table id="grid">') : page.index("</table>")]


def test_a_cell_that_is_not_there_yet_is_named_and_left_out_where_that_is_allowed(
    tmp_path, loopscope
):
    swept(tmp_path, {"cosine": {"low": {}, "high": {"mapping.minCosine": 0.5}}})
    code, _, err = loopscope("export", "s", tmp_path / "out")
    assert code == 1 and "1 of 2 cells of s do not exist yet" in err
    assert not (tmp_path / "out").exists()
    assert loopscope("export", "s", tmp_path / "out", "--allow-partial")[0] == 0
    assert [one.name for one in (tmp_path / "out/cells").iterdir()] == ["s-low"]
    rows = list(csv.DictReader((tmp_path / "out/cells.csv").open()))
    assert {row["name"]: row["state"] for row in rows} == {"s-high": "NotCreated", "s-low": "Ready"}


def test_an_unfinished_cell_leaves_nothing_and_a_folder_that_is_there_stays(tmp_path, loopscope):
    swept(tmp_path, {"cosine": {"low": {}}}, stages=STAGES)
    code, _, err = loopscope("export", "s", tmp_path / "out")
    assert code == 1 and "experiment/s-low" in err.lower() and "not finished" in err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state"]
    (tmp_path / "out").mkdir()
    code, _, err = loopscope("export", "s", tmp_path / "out", "--allow-partial")
    assert code == 1 and "exists" in err and list((tmp_path / "out").iterdir()) == []
