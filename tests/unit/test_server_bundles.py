"""Bundles as a site: what is shown, and that nothing beside them is."""

import json

import pytest

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from starlette.testclient import TestClient

from loopscope.server.bundles import bundle_application
from loopscope.state.failures import TerminalFailure

HERE = {"host": "127.0.0.1"}


@pytest.fixture
def folder(tmp_path):
    bundle = tmp_path / "site" / "france bundle"
    (bundle / "mapping").mkdir(parents=True)
    (bundle / "report.html").write_text("<title>the report</title>")
    (bundle / "mapping" / "gate.json").write_text('{"verdict": "GO"}')
    (bundle / "mapping" / "pairs.parquet").write_bytes(b"PAR1")
    status = [
        {"kind": "Experiment", "metadata": {"name": "<b>france"}, "status": {}},
        {"kind": "Mapping", "status": {"summary": {"verdict": "NO-GO"}}},
    ]
    (bundle / "status.json").write_text(json.dumps(status))
    (tmp_path / "secret.txt").write_text("secret")
    (bundle / "link.html").symlink_to(tmp_path / "secret.txt")
    (bundle / ".hidden.html").write_text("secret")
    return tmp_path / "site"


@pytest.fixture
def site(folder):
    return TestClient(bundle_application([folder]), base_url="http://127.0.0.1")


def test_the_index_names_each_bundle_with_its_answers_as_text(site):
    page = site.get("/")
    assert page.status_code == 200
    assert "&lt;b&gt;france" in page.text and "<b>france" not in page.text
    assert "NO-GO" in page.text and 'href="/france%20bundle/report.html"' in page.text
    assert "secret" not in page.text and "link.html" not in page.text


@pytest.mark.parametrize(
    "one",
    [
        {"kind": "Experiment", "metadata": []},
        {"kind": "Mapping", "status": None},
        {"kind": "Mapping", "status": {"summary": ["GO"]}},
    ],
)
def test_a_bundle_with_another_status_takes_no_other_from_the_index(site, folder, one):
    (folder / "france bundle" / "status.json").write_text(json.dumps([one]))
    page = site.get("/")
    assert page.status_code == 200 and 'href="/france%20bundle/report.html"' in page.text


def test_report_and_files_are_answered_as_what_they_are(site):
    report = site.get("/france%20bundle/report.html")
    assert report.text == "<title>the report</title>"
    assert report.headers["content-security-policy"].startswith("sandbox ")
    assert site.get("/france%20bundle/mapping/gate.json").json() == {"verdict": "GO"}
    table = site.get("/france%20bundle/mapping/pairs.parquet")
    assert table.content == b"PAR1" and "attachment" in table.headers["content-disposition"]


@pytest.mark.parametrize(
    "path",
    [
        "/france%20bundle/link.html",
        "/france%20bundle/.hidden.html",
        "/france%20bundle/..%2f..%2fsecret.txt",
        "/france%20bundle/%2e%2e/%2e%2e/secret.txt",
        "/france%20bundle//etc/passwd",
        "/france%20bundle/mapping",
        "/france%20bundle/mapping/gate.json%00.html",
        "/site/secret.txt",
        "/..%2fsecret.txt/x",
        "/france%20bundle/" + "a" * 300,
    ],
)
def test_what_lies_in_no_bundle_is_not_there(site, path):
    answer = site.get(path)
    assert answer.status_code == 404 and "secret" not in answer.text.replace("secret.txt", "")


def test_a_foreign_name_of_this_machine_is_refused(site):
    assert site.get("/", headers={"host": "evil.example"}).status_code == 403
    assert site.get("/", headers={"origin": "https://evil.example"}).status_code == 403


def test_a_bundle_that_comes_later_is_shown(site, folder):
    later = folder / "peru"
    later.mkdir()
    (later / "report.html").write_text("")
    (later / "status.json").write_text("no list")
    assert 'href="/peru/report.html"' in site.get("/").text


def test_a_folder_without_bundles_and_two_of_one_name_are_refused(folder, tmp_path):
    with pytest.raises(TerminalFailure, match="holds no bundle"):
        bundle_application([tmp_path / "nothing"])
    other = tmp_path / "other" / "france bundle"
    other.mkdir(parents=True)
    (other / "report.html").write_text("")
    (other / "status.json").write_text("[]")
    with pytest.raises(TerminalFailure, match="two bundles are called france bundle"):
        bundle_application([folder, tmp_path / "other"])


def test_what_does_not_go_with_bundles_is_refused(loopscope, folder):
    code, _, said = loopscope("serve", "--bundle", str(folder), "--write")
    assert code == 2 and "leave out --write" in said
