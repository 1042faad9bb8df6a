"""The suite of artifact stores on a bucket, whatever serves it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import obstore

from loopscope.state.artifacts.bucket import keys
from loopscope.state.artifacts.bucket.bucket_store import BucketStore
from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.bucket.copies import LocalCopies
from loopscope.state.artifacts.bucket.places import committed
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.store import ArtifactStore
from tests.conformance.artifact_store import StoreConformance


class BucketConformance(StoreConformance):
    """Files are harmed in the bucket itself, past the store."""

    @abstractmethod
    def bucket(self) -> Bucket:
        """Return the bucket of this test; asked again, the same."""

    def opened(self, folder: Path) -> BucketStore:
        bucket = self.bucket()
        bucket.create(keys.OWNER, b"{}")
        return BucketStore(bucket, LocalCopies(folder.parent / "copies"))

    def write(self, store: ArtifactStore, place: str, data: bytes | None) -> None:
        bucket = self.bucket()
        key = self.key_of(bucket, place)
        if data is None:
            bucket.delete([key])
        else:
            obstore.put(bucket.large, f"{bucket.prefix}/{key}", data)

    def key_of(self, bucket: Bucket, place: str) -> str:
        """Return the name under which a file of an artifact lies."""
        stage, _, rest = place.partition("/")
        digest, _, name = rest.partition("/")
        if stage == keys.SHARDS:
            return next(iter(bucket.listed(place)), f"{place}/{'0' * 64}")
        commit = committed(bucket, stage, digest) if name else None
        if commit is None:
            return place
        if name != MANIFEST:
            files = self.store.manifest(stage, digest)["files"]
            if name not in files:
                return place
            name = files[name]["sha256"]
        return f"{keys.files_of(stage, digest, commit.attempt)}/{name}"

    def shard_place(self, digest: str, name: str) -> str:
        return f"{keys.shards_of(digest)}/{name}"
