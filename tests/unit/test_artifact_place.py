"""Where a state folder keeps its artifacts: a bucket is named once, and is the state's own."""

from __future__ import annotations

import json
from pathlib import Path

import obstore
import pytest
from obstore import exceptions
from obstore.store import MemoryStore

from loopscope.controller.maintenance.snapshot import restore, save
from loopscope.state import artifact_place
from loopscope.state.artifact_place import STORE, kept_at
from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.address import Address, address_of, bucket_at
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import Unreachable
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import artifacts_of, keep_artifacts_at, open_state

URL = "s3://lab/loopscope"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A server in memory behind every URL."""
    store = MemoryStore()

    def bucket_in_memory(address: Address) -> Bucket:
        return Bucket(store, store, str(address), address.prefix)

    monkeypatch.setattr(artifact_place, "bucket_at", bucket_in_memory)
    return store


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("s3://AKIA:s3cret@lab/x", "holds a key"),
        ("s3://AKIA:s3/cret@lab/x", "holds a key"),
        ("gs://lab/x", "one of gs"),
        ("artifacts", "one of a file"),
        ("s3://Lab/x", "no bucket"),
        ("s3://", "no bucket"),
        ("s3://lab/a//b", "a prefix with other signs"),
        ("s3://lab/a b", "a prefix with other signs"),
        ("s3://lab/x#y", "a prefix with other signs"),
        ("s3://lab/x?secret_access_key=s3cret", "unknown word 'secret_access_key'"),
        ("s3://lab/x?endpoint=ftp://h", "an endpoint that is not like"),
        ("s3://lab/x?endpoint=http://me:s3cret@h", "an endpoint that is not like"),
        ("s3://lab/x?endpoint=http://[::1", "an endpoint that is not like"),
        ("s3://lab/x?endpoint=http://h:port", "an endpoint that is not like"),
        ("s3://lab/x?copies=many", "no size"),
        ("s3://lab/x?copies", "is no URL"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong(url, complaint, tmp_path):
    with pytest.raises(TerminalFailure, match=complaint) as refused:
        keep_artifacts_at(tmp_path / "state", url)
    assert refused.value.reason == "InvalidArtifactStore"
    assert "AKIA" not in str(refused.value) and "cret@" not in str(refused.value)
    assert not (tmp_path / "state").exists()


def test_a_url_is_kept_as_it_was_written():
    url = "s3://lab/a/b?endpoint=https%3A%2F%2Fh%3A9000&region=eu-1&copies=200000000000"
    assert address_of(url).written() == url
    assert address_of(URL).written() == URL and address_of("s3://lab").written() == "s3://lab"


def test_a_folder_keeps_its_bucket_and_needs_the_url_once(tmp_path):
    keep_artifacts_at(tmp_path, URL)
    for _ in range(2):
        state = open_state(tmp_path)
        assert isinstance(state.artifacts, BucketStore) and state.artifacts.place == URL
        assert not (tmp_path / "artifacts").exists()
    kept = kept_at(tmp_path)
    assert kept is not None and kept.address.written() == URL
    keep_artifacts_at(tmp_path, URL)
    assert kept_at(tmp_path) == kept


def test_a_url_that_leads_nowhere_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact_place, "bucket_at", bucket_at)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(Unreachable, match="cannot be used now"):
        keep_artifacts_at(tmp_path / "state", f"{URL}?endpoint=http://127.0.0.1:1")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "AWS_ENDPOINT_URL is not like https://host:port"),
        ("AWS_SECRET_ACCESS_KEY", None, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, both"),
    ],
)
def test_an_environment_that_cannot_be_right_is_refused(name, value, advice, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(TerminalFailure, match=advice) as refused:
        bucket_at(address_of(URL))
    assert refused.value.reason == "InvalidArtifactStore"


def test_who_has_no_keys_is_told_which_to_set(memory, monkeypatch):
    def ask_the_cloud(*_: object) -> None:
        raise exceptions.GenericError(
            "Error performing PUT http://169.254.169.254/latest/api/token"
        )

    monkeypatch.setattr(obstore, "get", ask_the_cloud)
    with pytest.raises(Unreachable, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket(memory, memory, URL, "x").get("loopscope.json")


def test_two_states_do_not_share_a_bucket(tmp_path):
    keep_artifacts_at(tmp_path / "one", URL)
    with pytest.raises(TerminalFailure) as refused:
        keep_artifacts_at(tmp_path / "two", URL)
    assert refused.value.reason == "ArtifactsOfAnotherState"
    assert not (tmp_path / "two").exists()
    keep_artifacts_at(tmp_path / "two", f"{URL}-two")


def test_whose_artifacts_they_are_can_be_said_where_a_state_is_lost(tmp_path):
    keep_artifacts_at(tmp_path / "one", URL)
    kept = kept_at(tmp_path / "one")
    assert kept is not None
    keep_artifacts_at(tmp_path / "two", f"{URL}?owner={kept.owner}")
    assert kept_at(tmp_path / "two") == kept


def test_a_server_that_overwrites_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Bucket, "create", lambda self, key, data: self.put(key, data) or True)
    with pytest.raises(TerminalFailure) as refused:
        keep_artifacts_at(tmp_path / "state", URL)
    assert refused.value.reason == "UnfitArtifactStore" and not (tmp_path / "state").exists()
    bucket = artifact_place.bucket_at(address_of(URL))
    assert bucket.get(keys.OWNER) is None


def test_a_folder_with_artifacts_takes_no_bucket(tmp_path):
    (tmp_path / "artifacts" / "capture" / "x").mkdir(parents=True)
    with pytest.raises(TerminalFailure) as refused:
        keep_artifacts_at(tmp_path, URL)
    assert refused.value.reason == "AnotherArtifactStore" and kept_at(tmp_path) is None
    assert isinstance(artifacts_of(tmp_path), FolderStore)


def test_another_bucket_is_taken_only_if_everything_was_copied_there(tmp_path):
    keep_artifacts_at(tmp_path, URL)
    with pytest.raises(TerminalFailure) as refused:
        keep_artifacts_at(tmp_path, f"{URL}-new")
    assert refused.value.reason == "AnotherArtifactStore"
    old, new = (artifact_place.bucket_at(address_of(url)) for url in (URL, f"{URL}-new"))
    found = old.get(keys.OWNER)
    assert found is not None
    new.put(keys.OWNER, found[0])
    keep_artifacts_at(tmp_path, f"{URL}-new")
    assert open_state(tmp_path).artifacts.place == f"{URL}-new"


@pytest.mark.parametrize("content", [b"\xff", b"{}", b'{"url": 1, "owner": 2}', None])
def test_a_file_that_cannot_be_read_is_never_taken_for_no_bucket(tmp_path, content):
    keep_artifacts_at(tmp_path, URL)
    (tmp_path / STORE).unlink()
    if content is None:
        (tmp_path / STORE).mkdir()
    else:
        (tmp_path / STORE).write_bytes(content)
    for look in (artifacts_of, open_state):
        with pytest.raises(TerminalFailure, match="InvalidArtifactStore"):
            look(tmp_path)


def test_a_database_whose_bucket_is_not_named_is_not_worked_on(tmp_path):
    keep_artifacts_at(tmp_path, URL)
    kept = kept_at(tmp_path)
    assert kept is not None
    (tmp_path / STORE).unlink()
    with pytest.raises(TerminalFailure, match="ArtifactsElsewhere") as refused:
        open_state(tmp_path)
    assert f"--artifacts '{URL}?owner={kept.owner}'" in str(refused.value)
    keep_artifacts_at(tmp_path, URL)  # the database knows that it is its own
    assert open_state(tmp_path).artifacts.place == URL


def test_a_snapshot_is_restored_only_where_its_artifacts_are(tmp_path: Path):
    there, here = tmp_path / "there", tmp_path / "here"
    keep_artifacts_at(there, URL)
    save(open_state(there), tmp_path / "saved", now=1.0, lineage="x", force=False)
    with pytest.raises(TerminalFailure, match="ArtifactsElsewhere") as refused:
        restore(here, tmp_path / "saved", force=False)
    (named,) = (word for word in str(refused.value).split("'") if word.startswith("s3:"))
    keep_artifacts_at(here, named)
    assert restore(here, tmp_path / "saved", force=False).is_new
    assert open_state(here).artifacts.place == URL


def test_a_snapshot_of_a_state_with_a_folder_is_not_restored_beside_a_bucket(tmp_path):
    save(open_state(tmp_path / "there"), tmp_path / "saved", now=1.0, lineage="x", force=False)
    keep_artifacts_at(tmp_path / "here", URL)
    with pytest.raises(TerminalFailure, match="lie in a folder"):
        restore(tmp_path / "here", tmp_path / "saved", force=False)


def test_no_key_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    keep_artifacts_at(tmp_path, URL)
    kept = json.loads((tmp_path / STORE).read_text())
    assert kept.keys() == {"url", "owner"}
    assert not any(b"s3cret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
