"""A Hugging Face hub on loopback, small but honest: commits, file hashes, ranges, error codes.

Serves what ``HfApi.model_info``, ``dataset_info``, ``list_repo_tree``, ``hf_hub_download`` and
``snapshot_download`` ask for. Set ``HF_ENDPOINT`` to ``endpoint`` before huggingface_hub is
imported, and ``HF_HUB_DISABLE_XET=1``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".npz", ".bin", ".model", ".parquet")


@dataclass
class Repository:
    files: dict[str, bytes]
    commit: str
    gated: bool = False
    said_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes in place of the true ones; where parts are asked for, noughts fill them."""


@dataclass
class FakeHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    broken_with: int | None = None
    files_broken_with: int | None = None
    bytes_sent: int = 0
    authorizations: set[str] = field(default_factory=set)
    """What clients proved themselves with."""

    def add(self, repo: str, files: dict[str, bytes], *, gated: bool = False) -> str:
        """Publish a repository and return its commit; a data set is ``datasets/owner/name``."""
        content = json.dumps({name: sha256(data) for name, data in files.items()}, sort_keys=True)
        commit = hashlib.sha1(f"{repo}{content}".encode()).hexdigest()
        self.repositories[repo] = Repository(files, commit, gated)
        return commit

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.fake.authorizations.add(self.headers.get("Authorization", ""))
        try:
            self._route()
        except Refused as refused:
            self._send(refused.status, b"", {"X-Error-Code": refused.code})

    def _route(self) -> None:
        if self.fake.broken_with:
            raise Refused(self.fake.broken_with, "Broken")
        url = urlsplit(self.path)
        path = unquote(url.path)
        path = path.replace("/api/datasets/", "/api/models/datasets/")
        if found := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            if "/tree/" in path:
                repo, _, rest = path.removeprefix("/api/models/").partition("/tree/")
                revision, _, folder = rest.partition("/")
                self._tree(self._repository(repo, revision), folder)
            else:
                repository = self._repository(found[1], found[2] or "main")
                self._info(found[1], repository, "blobs" in parse_qs(url.query))
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._file(self._repository(found[1], found[2]), found[3])
        else:
            raise Refused(404, "EntryNotFound")

    def _repository(self, repo: str, revision: str) -> Repository:
        repository = self.fake.repositories.get(repo)
        if repository is None:
            raise Refused(404, "RepoNotFound")
        if revision not in ("main", repository.commit):
            raise Refused(404, "RevisionNotFound")
        return repository

    def _info(self, repo: str, repository: Repository, blobs: bool) -> None:
        siblings: list[dict[str, Any]] = []
        for name, data in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": name}
            if blobs:
                size = repository.said_sizes.get(name, len(data))
                sibling |= {"size": size, "blobId": git_blob_id(data)}
            if blobs and name.endswith(LFS_SUFFIXES):
                sibling["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
            siblings.append(sibling)
        info = {
            "_id": "1", "id": repo, "modelId": repo, "sha": repository.commit, "private": False,
            "gated": "manual" if repository.gated else False, "disabled": False, "downloads": 0,
            "likes": 0, "tags": [], "siblings": siblings,
        }  # fmt: skip
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _tree(self, repository: Repository, folder: str) -> None:
        entries: list[dict[str, Any]] = []
        for name, data in repository.files.items():
            if folder and not name.startswith(f"{folder}/"):
                continue
            entry: dict[str, Any] = {
                "type": "file", "path": name, "size": len(data), "oid": git_blob_id(data)
            }  # fmt: skip
            if name.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        if not entries:
            raise Refused(404, "EntryNotFound")
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, name: str) -> None:
        if self.fake.files_broken_with:
            raise Refused(self.fake.files_broken_with, "Broken")
        if repository.gated:
            raise Refused(403, "GatedRepo")
        if name not in repository.files:
            raise Refused(404, "EntryNotFound")
        data = repository.files[name]
        etag = sha256(data) if name.endswith(LFS_SUFFIXES) else git_blob_id(data)
        headers = {
            "X-Repo-Commit": repository.commit,
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, data, headers)
            return
        size = repository.said_sizes.get(name, len(data))
        start, end = int(wanted[1]), int(wanted[2] or size - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        part = data[start : end + 1]
        if name in repository.said_sizes:
            part = part.ljust(min(end, size - 1) + 1 - start, b"\0")
        self._send(206, part, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.fake.bytes_sent += len(body)
            self.wfile.write(body)


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
