"""Every artifact store passes the suite of its port: folders, a bucket, and a toy."""

from __future__ import annotations

from pathlib import Path

from obstore.store import MemoryStore

from loopscope.state.artifacts.bucket.client import Bucket
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.store import ArtifactStore
from tests.conformance.artifact_store import StoreConformance
from tests.conformance.bucket import BucketConformance
from tests.conformance.dictionary_store import DictionaryStore


class TestFolderStore(StoreConformance):
    def opened(self, folder: Path) -> FolderStore:
        return FolderStore(folder)

    def write(self, store: ArtifactStore, place: str, data: bytes | None) -> None:
        path = self.folder / place
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def shard_place(self, digest: str, name: str) -> str:
        return f".work/{digest}/{name}"


class TestDictionaryStore(StoreConformance):
    def opened(self, folder: Path) -> DictionaryStore:
        self.files: dict[str, bytes] = getattr(self, "files", {})
        return DictionaryStore(folder.parent / "local", self.files)

    def write(self, store: ArtifactStore, place: str, data: bytes | None) -> None:
        if data is None:
            del self.files[place]
        else:
            self.files[place] = data

    def shard_place(self, digest: str, name: str) -> str:
        return f"work/{digest}/{name}"


class TestBucketStore(BucketConformance):
    """In memory; real servers are in ``tests/cluster``."""

    def bucket(self) -> Bucket:
        self.memory = getattr(self, "memory", None) or MemoryStore()
        return Bucket(self.memory, self.memory, "memory", "a/prefix")
