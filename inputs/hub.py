"""The Hugging Face hub as this package needs it: a commit, its files' hashes, few bytes of them.

Messages never carry an address, a header or the text of a library's exception: each of these
may hold a token.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, cast

from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import SHA256, HashMemo
from loopscope.inputs.headers import HeaderError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SMALL_FILE_BYTES_MAX = 64 * 2**20
RANGE_BYTES_MAX = 128 * 2**20
"""Most bytes read from one remote file for the sake of its header."""
BUFFER_BYTES = 64 * 2**10
CAUSES_MAX = 20
"""Causes of an error may go in a circle."""
COMMIT = re.compile(r"[0-9a-f]{40}")
RepositoryKind = Literal["model", "dataset"]
"""Models and dictionaries lie in repositories of the first kind."""


def hub_is_switched_off() -> bool:
    """Whether ``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE`` is set, as the library reads them."""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True)
class HubFile:
    """Size in bytes and, where the hub stores the file by content, its sha256.

    Other files are known by their git object (``blob``).
    """

    size: int
    sha256: str | None
    blob: str | None = None


@dataclass(frozen=True)
class HubCommit:
    """One commit of a hub repository and the files in it."""

    repo: str
    commit: str
    files: dict[str, HubFile]
    kind: RepositoryKind = "model"


@dataclass(frozen=True)
class Hub:
    """Access to a hub.

    ``endpoint`` defaults to ``HF_ENDPOINT``, then to huggingface.co; ``cache`` to the Hugging
    Face cache. An ``offline`` hub answers everything with ``ResolutionPending``.
    """

    endpoint: str | None = None
    cache: Path | None = None
    timeout_seconds: float = 20.0
    offline: bool = False

    def commit(
        self, repo: str, revision: str, field: str, kind: RepositoryKind = "model"
    ) -> HubCommit:
        """Resolve a revision (branch, tag or commit) to a commit and the files in it."""
        if self.offline:
            raise ResolutionPending("Resolving", f"{repo} is looked up on the hub later")
        from huggingface_hub import HfApi

        with hub_errors(repo, revision, field):
            api = HfApi(endpoint=self._endpoint)
            look = api.dataset_info if kind == "dataset" else api.model_info
            info = look(repo, revision=revision, files_metadata=True, timeout=self.timeout_seconds)
        if not COMMIT.fullmatch(info.sha or ""):
            raise ResolutionPending("HubUnreachable", f"the hub named no commit for {repo}")
        files = {
            sibling.rfilename: HubFile(
                sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id
            )
            for sibling in info.siblings or []
        }
        return HubCommit(repo, str(info.sha), files, kind)

    def download(
        self,
        at: HubCommit,
        name: str,
        field: str,
        bytes_max: int = SMALL_FILE_BYTES_MAX,
        *,
        afresh: bool = False,
    ) -> Path:
        """Return a local copy of a file of at most ``bytes_max`` bytes; ``afresh``: a new one."""
        from huggingface_hub import hf_hub_download

        size = at.files[name].size
        if size > bytes_max:
            raise InputRefused(
                field, f"{at.repo}: {name} has {size} bytes; at most {bytes_max} are read"
            )
        with hub_errors(at.repo, at.commit, field):
            return Path(
                hf_hub_download(
                    at.repo,
                    name,
                    revision=at.commit,
                    repo_type=at.kind,
                    endpoint=self._endpoint,
                    cache_dir=self.cache,
                    force_download=afresh,
                    etag_timeout=self.timeout_seconds,
                )
            )

    def downloaded(self, at: HubCommit, name: str) -> Path | None:
        """Return the local copy of a file if there is one, without a network."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            at.repo, name, cache_dir=self.cache, revision=at.commit, repo_type=at.kind
        )
        return Path(found) if isinstance(found, str) else None

    def sha256(self, at: HubCommit, name: str, field: str, memo: HashMemo) -> str:
        """Return the sha256 of a file: as stored by the hub, else of a small file's bytes."""
        known = at.files[name].sha256
        if known is None:
            return memo.sha256(self.download(at, name, field))
        if not SHA256.fullmatch(known):
            raise ResolutionPending("HubUnreachable", f"the hub named no sha256 for {name}")
        return known

    def open(self, at: HubCommit, name: str, field: str) -> BinaryIO:
        """Open a remote file for seeking and reading; only the bytes asked for are fetched."""
        raw = _RemoteFile(self._endpoint, at, name, field, self.timeout_seconds)
        return cast(BinaryIO, io.BufferedReader(raw, BUFFER_BYTES))

    @property
    def _endpoint(self) -> str | None:
        return self.endpoint or os.environ.get("HF_ENDPOINT")


class _RemoteFile(io.RawIOBase):
    """A remote file read by HTTP ranges, within a budget of ``RANGE_BYTES_MAX`` bytes.

    Never raises ``OSError``: a reader such as zipfile would take it for a damaged file.
    """

    def __init__(
        self, endpoint: str | None, at: HubCommit, name: str, field: str, timeout: float
    ) -> None:
        from huggingface_hub import hf_hub_url

        self._url = hf_hub_url(
            at.repo, name, revision=at.commit, repo_type=at.kind, endpoint=endpoint
        )
        self._at, self._field = at, field
        self._size = at.files[name].size
        self._timeout = timeout
        self._position = 0
        self._left = RANGE_BYTES_MAX

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the file's start")
        self._position = start + offset
        return self._position

    def readinto(self, target: WriteableBuffer) -> int:
        view = memoryview(target)
        count = min(len(view), self._size - self._position)
        if count <= 0:
            return 0
        if count > self._left:
            raise HeaderError("the header is longer than what is read of a remote file")
        self._left -= count
        with hub_errors(self._at.repo, self._at.commit, self._field):
            view[:count] = self._fetch(self._position, count)
        self._position += count
        return count

    def _fetch(self, start: int, count: int) -> bytes:
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        headers = {
            **build_hf_headers(),
            "Range": f"bytes={start}-{start + count - 1}",
            "Accept-Encoding": "identity",
        }
        with get_session().stream(
            "GET", self._url, headers=headers, timeout=self._timeout
        ) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                raise ConnectionError("the hub does not serve parts of files")
            content = bytearray()
            for block in response.iter_bytes():
                content += block
                if len(content) > count:
                    break
        if len(content) != count:
            raise ConnectionError("the hub sent another part than asked for")
        return bytes(content)


@contextmanager
def hub_errors(repo: str, revision: str, field: str) -> Iterator[None]:
    """Raise ``InputRefused`` or ``ResolutionPending`` for what the hub client raises within.

    An error of no known family passes: its words may hold a token.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except (InputRefused, ResolutionPending):
        raise
    except OfflineModeIsEnabled:
        raise ResolutionPending(
            "HubOffline", f"{repo} is not looked up while HF_HUB_OFFLINE is set; unset it"
        ) from None
    except LocalEntryNotFoundError as error:
        if (answer := _refusal_behind(error)) is not None:  # an answer is not an outage
            _refuse_answer(answer, repo, revision, field)
        _unreachable(repo, error)
    except HfHubHTTPError as error:
        _refuse_answer(error, repo, revision, field)
    except HFValidationError:
        raise InputRefused(
            field, f"{repo!r} cannot be the name of a hub repository; write owner/name"
        ) from None
    except (OSError, ValueError) as error:  # no connection, or an answer that is not JSON
        _unreachable(repo, error)
    except Exception as error:
        # The family of whichever HTTP library the installed huggingface_hub uses.
        family = {kind.__name__ for kind in type(error).__mro__}
        if family & {"HTTPError", "StreamError", "InvalidURL"}:
            _unreachable(repo, error)
        raise


def _refusal_behind(error: BaseException) -> Exception | None:
    """Return the answer that this user, or this token, may not read, among an error's causes."""
    link: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if link is None:
            break
        if isinstance(link, Exception) and _status(link) in (401, 403):
            return link
        link = link.__cause__
    return None


def _status(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def _unreachable(repo: str, error: Exception) -> NoReturn:
    raise ResolutionPending(
        "HubUnreachable",
        f"the hub that should hold {repo} cannot be reached{_how(error)}; check the network and "
        "HF_ENDPOINT",
    ) from None


_HOW = (
    ({"gaierror"}, "its host name is not known"),
    ({"ConnectionRefusedError"}, "it refused the connection"),
    ({"SSLError", "SSLCertVerificationError"}, "its certificate is not trusted"),
    ({"ProxyError"}, "the proxy did not let it through"),
    ({"TimeoutError", "TimeoutException", "Timeout"}, "it did not answer in time"),
    ({"JSONDecodeError"}, "what answered there is no hub"),
)
"""Our own words: a library's message may hold an address, and that a token."""


def _how(error: BaseException | None) -> str:
    """Return how a connection failed, as far as an error and its causes show."""
    kinds: set[str] = set()
    for _ in range(CAUSES_MAX):
        if error is None:
            break
        kinds |= {kind.__name__ for kind in type(error).__mro__}
        if "Name or service not known" in str(error) or "nodename nor servname" in str(error):
            kinds.add("gaierror")
        error = error.__cause__ or error.__context__
    return next((f" ({words})" for signs, words in _HOW if signs & kinds), "")


def _refuse_answer(error: Exception, repo: str, revision: str, field: str) -> NoReturn:
    """Translate an error answer of the hub; only a busy or failing hub is worth a retry."""
    from huggingface_hub import errors

    status = _status(error)
    if status in (408, 425, 429) or status >= 500:
        raise ResolutionPending("HubBusy", f"the hub answered {status} for {repo}") from None
    if isinstance(error, errors.GatedRepoError):
        message = (
            f"{repo} is gated: accept its terms on the hub's page, then set HF_TOKEN "
            "to a token of that account"
        )
    elif status == 401 and os.environ.get("HF_TOKEN"):
        message = (
            f"the hub answered 401 for {repo}: there is no such repository (owner/name), or the "
            "token in HF_TOKEN is not valid or may not read it"
        )
    elif isinstance(error, errors.DisabledRepoError):
        message = f"{repo} was disabled by the hub; name another repository"
    elif isinstance(error, errors.RepositoryNotFoundError):
        message = (
            f"the hub has no repository {repo}, or it is private; check the spelling "
            "(owner/name), or set HF_TOKEN to a token that may read it"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        message = f"{repo} has no revision {revision}; name a branch, tag or commit"
    elif isinstance(error, errors.EntryNotFoundError):
        message = f"{repo} lacks a file that it lists at {revision}"
    elif status == 403:
        message = (
            f"the hub does not let this user read {repo} (403); set HF_TOKEN to a token that may "
            "read it, or give the one that is set the right"
        )
    else:
        message = f"the hub answered {status} for {repo}; check the name and HF_TOKEN"
    raise InputRefused(field, message) from None
