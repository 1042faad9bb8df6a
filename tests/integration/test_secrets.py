"""A token in the environment goes to the hub and nowhere else: whole runs, and one that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_hub import FakeHub
from tests.integration.real import Place

pytestmark = pytest.mark.integration

TOKEN = "hf_plantedsecret"


def test_a_token_is_in_no_file_that_a_run_leaves_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub() as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        place = Place(tmp_path)
        place.write()
        place.settle()
        told = [place.call("report", "tiny"), place.call("export", "tiny", str(tmp_path / "out"))]
        place.write("absent", model={"name": "nobody/nothing"})
        told += [place.run(), place.call("describe", "capture", "absent"), place.call("events")]
    assert [code for code, _ in told] == [0, 0, 1, 0, 0], told
    assert "HF_TOKEN" in told[3][1], "the failure says what to do"
    assert any(TOKEN in sent for sent in hub.authorizations), "the token was in use"
    assert not [text for _, text in told if TOKEN in text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix in (".log", ".db", ".html", ".json")]) > 10
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
