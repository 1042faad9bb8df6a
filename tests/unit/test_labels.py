"""What others say of latents: linked and shown with its date, never asked unless one asks."""

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loopscope.inputs import labels
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.labels import SITE, fetch, known, place_of
from loopscope.reports.page.html import render_report
from loopscope.reports.page.sections.latents import latents, shown_on
from loopscope.views.experiment import ExperimentView
from loopscope.views.labels import Elsewhere, Label
from tests.unit.reports_case import build

PLACE = "gpt2-small/8-res-jb"
GPT2 = {"release": "gpt2-small-res-jb", "id": "blocks.8.hook_resid_pre"}
TODAY = "2026-11-29"


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A small Neuronpedia: what it answers by path, and what it was asked."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    answers: dict[str, tuple[int, bytes]] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.answers, server.asked = answers, asked
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def says(site, latent, *descriptions, place=PLACE):
    content = {"index": str(latent), "explanations": [{"description": d} for d in descriptions]}
    site.answers[f"/api/feature/{place}/{latent}"] = (200, json.dumps(content).encode())


def test_the_registry_says_where_a_dictionary_stands():
    assert place_of(GPT2) == PLACE
    assert place_of({"path": "x"}) is None
    assert place_of({**GPT2, "id": "nowhere"}) is None
    assert place_of({"release": "owner/name", "id": "x"}) is None


def test_labels_are_fetched_once_asked_and_kept_with_their_date(site):
    says(site, 3, "words about  France", "words about France", "")
    assert known(PLACE).labels == {} and known(PLACE).site == SITE
    found = fetch(PLACE, [3, 4], TODAY, site=site.address)
    assert found.labels == {
        3: {"texts": ["words about France"], "on": TODAY},
        4: {"texts": [], "on": TODAY},
    }
    assert known(PLACE) == found and len(site.asked) == 2
    fetch(PLACE, [5], "2026-12-01", site=site.address)
    assert known(PLACE).labels[3]["on"] == TODAY and known(PLACE).labels[5]["on"] == "2026-12-01"


def test_a_site_that_fails_leaves_what_was_known(site):
    says(site, 3, "France")
    fetch(PLACE, [3], TODAY, site=site.address)
    before = known(PLACE)
    for answer in ((503, b""), (200, b"no JSON")):
        site.answers[f"/api/feature/{PLACE}/4"] = answer
        with pytest.raises(ResolutionPending):
            fetch(PLACE, [4], TODAY, site=site.address)
    with pytest.raises(ResolutionPending, match="cannot be reached"):
        fetch(PLACE, [4], TODAY, site="http://127.0.0.1:9")
    with pytest.raises(InputRefused, match="is no site"):
        fetch(PLACE, [4], TODAY, site="file:///etc")
    assert known(PLACE) == before


def test_what_answers_but_speaks_no_http_is_not_the_site(site):
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(ResolutionPending, match="cannot be reached"):
        fetch(PLACE, [3], TODAY, site=f"http://127.0.0.1:{listening.getsockname()[1]}")
    thread.join()
    listening.close()


def test_a_label_that_is_no_utf8_or_would_steer_a_terminal_is_written_out(site):
    says(site, 3, "half \ud83d pair", "red \x1b[31m", "turned \u202e round")
    texts = fetch(PLACE, [3], TODAY, site=site.address).labels[3]["texts"]
    assert texts == ["half \\ud83d pair", "red \\x1b[31m", "turned \\u202e round"]
    assert known(PLACE).labels[3]["texts"] == texts


def test_a_record_that_is_none_is_as_good_as_absent(site):
    path = labels._file(PLACE, None)
    path.parent.mkdir(parents=True)
    for content in ("", "[]", '{"site": "javascript:x", "labels": {}}', '{"site": 1}'):
        path.write_text(content)
        assert known(PLACE).site == SITE and known(PLACE).labels == {}


def test_what_a_record_holds_is_bounded_and_fit_to_be_written_as_well(site):
    path = labels._file(PLACE, None)
    path.parent.mkdir(parents=True)
    texts = ["half \ud83d pair", *(f"{n} " * 400 for n in range(40))]
    path.write_text(json.dumps({"site": SITE, "labels": {"3": {"texts": texts, "on": TODAY}}}))
    found = known(PLACE).labels[3]["texts"]
    assert found[0] == "half \\ud83d pair" and len(found) == labels.LABELS_MAX
    assert max(map(len, found)) == labels.CHARACTERS_MAX


def test_labels_are_bounded(site):
    says(site, 3, *(f"{n} " * 400 for n in range(40)))
    texts = fetch(PLACE, [3], TODAY, site=site.address).labels[3]["texts"]
    assert len(texts) == labels.LABELS_MAX
    assert max(map(len, texts)) == labels.CHARACTERS_MAX


def test_the_report_links_each_shown_latent_and_shows_its_labels_beside_our_evidence(tmp_path):
    view = ExperimentView.load(*build(tmp_path))
    (side, latent), *others = [(one.side, one.latent) for one in latents(view).shown]
    hostile = "<script>alert(1)</script>"
    described = {side: Elsewhere(SITE, PLACE, {latent: Label((hostile, "France"), TODAY)})}
    page = render_report(view, described=described)
    links = re.findall(r'<a href="(https://[^"]+)" rel="noreferrer">', page)
    same_side = [number for of, number in [(side, latent), *others] if of == side]
    assert links == [f"{SITE}/{PLACE}/{number}" for number in same_side]
    assert hostile not in page and "&lt;script&gt;alert(1)" in page
    assert f"said there on {TODAY}" in page and "It chose nothing here" in page
    assert "neuronpedia" not in render_report(view).lower()


@pytest.fixture
def france(tmp_path):
    """A finished experiment whose coarse dictionary is registered, in ``state``."""
    dictionaries = {"coarse": GPT2, "fine": {"path": "/nowhere"}}
    return build(tmp_path, changes={"dictionaries": dictionaries})


def test_a_command_shows_what_is_known_and_asks_only_with_fetch(site, france, loopscope):
    state, key = france
    view = ExperimentView.load(state, key)
    shown = [one.latent for one in shown_on(view) if one.side == "coarse"]
    says(site, shown[0], "words about France")
    code, out, _ = loopscope("labels", "france")
    assert code == 0 and f"{SITE}/{PLACE}/{shown[0]}" in out and not site.asked
    code, out, _ = loopscope("labels", "france", "--fetch", "--site", site.address)
    assert code == 0 and "words about France" in out
    assert site.asked == [f"/api/feature/{PLACE}/{number}" for number in shown]
    code, _, err = loopscope("labels", "france", "--fetch", "--site", "http://127.0.0.1:9")
    assert code == 2 and "cannot be reached" in err
    code, out, _ = loopscope("report", "france", "-o", "page.html")
    assert code == 0 and "words about France" in (state.path.parent / "page.html").read_text()


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_no_site_is_asked_where_the_hub_is_switched_off(site, france, loopscope, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    code, _, err = loopscope("labels", "france", "--fetch", "--site", site.address)
    assert code == 2 and len(err.splitlines()) == 1 and "HF_HUB_OFFLINE is set" in err
    code, out, _ = loopscope("labels", "france")
    assert code == 0 and SITE in out and not site.asked


def test_labels_of_matched_controls_are_fetched_too(site, tmp_path, loopscope):
    dictionaries = {"coarse": GPT2, "fine": {"path": "/nowhere"}}
    view = ExperimentView.load(
        *build(tmp_path, evidence=True, changes={"dictionaries": dictionaries})
    )
    control = latents(view).shown[-1]
    assert control.role.startswith("control of")
    says(site, control.latent, "words about nothing")
    code, out, _ = loopscope("labels", "france", "--fetch", "--site", site.address)
    assert code == 0 and "words about nothing" in out


def test_dictionaries_that_stand_nowhere_are_said_to(site, tmp_path, loopscope):
    nowhere = {"path": "/nowhere"}
    build(tmp_path, changes={"dictionaries": {"coarse": nowhere, "fine": nowhere}})
    code, _, err = loopscope("labels", "france", "--fetch")
    assert code == 1 and "knows no page" in err and not site.asked
