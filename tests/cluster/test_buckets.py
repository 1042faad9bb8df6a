"""The suite of artifact stores on two real S3 servers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from loopscope.state.artifacts.bucket.address import address_of, bucket_at
from loopscope.state.artifacts.bucket.client import PIECE_BYTES, Bucket
from tests.conformance.bucket import BucketConformance
from tests.s3_servers import S3Server


class OnAServer(BucketConformance):
    """A bucket of its own for each test."""

    url = ""

    def open_on(self, server: S3Server, folder: Path) -> None:
        self.url = f"s3://{server.new_bucket()}/a/prefix?endpoint={server.endpoint}"
        self.folder = folder / "artifacts"
        self.store = self.opened(self.folder)

    def bucket(self) -> Bucket:
        return bucket_at(address_of(self.url))

    def test_a_file_of_several_pieces_goes_up_and_comes_down(self, tmp_path):
        payload = {"big": bytes(range(256)) * ((2 * PIECE_BYTES + 1000) // 256), "empty": b""}
        staging, record = self.sealed(payload=payload)
        self.store.publish(staging, record, self.store.prepare(staging, record))
        again = self.opened(tmp_path / "elsewhere/artifacts")
        folder = again.fetch(record)
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in payload}
        assert found == {name: entry.sha256 for name, entry in record.files.items()}


class TestLocalBucket(OnAServer):
    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path, localbucket: S3Server) -> None:
        self.open_on(localbucket, tmp_path)


class TestMoto(OnAServer):
    @pytest.fixture(autouse=True)
    def _open(self, tmp_path: Path, moto: S3Server) -> None:
        self.open_on(moto, tmp_path)
