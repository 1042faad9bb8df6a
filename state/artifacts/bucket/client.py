"""The client of one prefix of a bucket. What it cannot find out it says by ``Unreachable``.

Small requests answer soon or not at all, because some are made while the database is locked; large
ones have patience. After one that got no answer none is tried for a while: a loop that asks for
many things must not wait for each.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import obstore
from obstore import exceptions

from loopscope.state.artifacts.bucket.keys import OWNER
from loopscope.state.artifacts.store import Unreachable

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.store import ObjectStore

PIECE_BYTES = 8 * 1024 * 1024
"""What is read and sent at once. A whole object would be held in memory by the client."""
PIECES_MAX = 9_000
"""An upload may have 10,000."""
PIECES_AT_ONCE = 2
SMALL_BYTES_MAX = 16 * 1024 * 1024
READS_MAX = 3
DOWN_SECONDS = 5.0
"""For so long after a request without an answer the next ones fail at once."""
THERE_SECONDS = 10.0
"""For so long after something was found, what is not found is believed to be missing."""
WORDS_MAX = 300
_ASKED = re.compile(r"^.*?: Error (performing|getting) .*?(?= - |: HTTP)( - |: )")
"""What was asked for, how often and for how long."""
_NO_KEYS = "/169.254.169.254/"
"""Where the client asks for keys of the machine when it was told none."""


Answer = TypeVar("Answer")


class NotThere(Exception):
    """There is no such object, and the store itself is there."""


class Entry(NamedTuple):
    """What a listing says of an object."""

    bytes: int
    tag: str
    """Another one once the object was written again."""
    since: float
    """When it was written, by the clock of the server."""


@dataclass
class Bucket:
    """The objects below one prefix, by their names without it."""

    small: ObjectStore
    large: ObjectStore
    place: str
    """For messages."""
    prefix: str = ""
    clock: Callable[[], float] = time.monotonic
    _down_until: float = 0.0
    _why: str = ""
    _there_until: float = field(default=0.0)

    # -- one object ------------------------------------------------------------------------------

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return the bytes of a small object and their tag, or None. Raises ValueError."""

        def ask() -> tuple[bytes, str]:
            found = obstore.get(self.small, self._path(key))
            if found.meta["size"] > SMALL_BYTES_MAX:
                raise ValueError(f"{key} is larger than {SMALL_BYTES_MAX:,} bytes")
            return bytes(found.bytes()), _entry(found.meta).tag

        try:
            answer = self._read(ask)
        except NotThere:
            self._check_there(key)
            return None
        self._was_there()
        return answer

    def entry(self, key: str) -> Entry | None:
        """Return what the server says of an object, or None."""
        try:
            with self._asked():
                found = _entry(obstore.head(self.small, self._path(key)))
        except NotThere:
            self._check_there(key)
            return None
        self._was_there()
        return found

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, whatever is there."""
        self._put(key, data, "overwrite")

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object if there is none; False if there is one.

        That one may be our own, of a request whose answer was lost.
        """
        return self._put(key, data, "create")

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Write a small object if the one that is there has a tag; False if not."""
        return self._put(key, data, {"e_tag": tag})

    def upload(self, key: str, path: Path, sha256: str) -> str:
        """Write a file of any size; return its tag. Twice is harmless.

        Raises OSError when the file is not the one that was hashed.
        """
        size = path.stat().st_size
        piece = max(PIECE_BYTES, -(-size // PIECES_MAX))
        pieces = _hashed(path, piece, sha256)
        with self._writing():
            if size <= piece:
                data = b"".join(pieces)
                done = obstore.put(self.large, self._path(key), data, use_multipart=False)
            else:
                done = obstore.put(
                    self.large, self._path(key), pieces,
                    use_multipart=True, chunk_size=piece, max_concurrency=PIECES_AT_ONCE,
                )  # fmt: skip
        return done["e_tag"] or ""

    def pieces(self, key: str, size: int, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """Yield the bytes of an object of a known size. Raises NotThere."""
        for start in range(0, size, piece_bytes):
            yield self._piece(key, start, min(piece_bytes, size - start))

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket; nothing where there is none."""
        with suppress(NotThere), self._asked():
            obstore.copy(self.large, self._path(source), self._path(target))

    def delete(self, keys: Collection[str]) -> None:
        """Remove objects; one that is not there is no error."""
        if keys:
            with suppress(NotThere), self._asked():
                obstore.delete(self.small, [self._path(key) for key in sorted(keys)])

    # -- many ------------------------------------------------------------------------------------

    def listed(self, folder: str = "") -> dict[str, Entry]:
        """Return all objects below a name, by their whole names."""

        def ask() -> dict[str, Entry]:
            stream = obstore.list(self.small, self._path(folder) or None, chunk_size=1000)
            return {self._key(meta): _entry(meta) for page in stream for meta in page}

        found = self._read(ask)
        if found:
            self._was_there()
        else:
            self._check_there(folder)
        return found

    def folders(self, folder: str) -> set[str]:
        """Return the next parts of the names below a name."""
        found = self._read(lambda: obstore.list_with_delimiter(self.small, self._path(folder)))
        names = {name.rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]}
        if not names:
            self._check_there(folder)
        return names

    # -- errors ------------------------------------------------------------------------------------

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Turn what a request ends with into Unreachable, unless it is an answer."""
        if self.clock() < self._down_until:
            raise Unreachable(self._why)
        try:
            yield
        except FileNotFoundError:
            raise NotThere from None
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except exceptions.BaseError as error:
            why = f"{self.place} cannot be used now: {_said(error)}"
            if isinstance(error, exceptions.GenericError):
                self._down_until, self._why = self.clock() + DOWN_SECONDS, why
            raise Unreachable(why) from None

    def _read(self, ask: Callable[[], Answer]) -> Answer:
        """Ask, and ask again where an answer breaks off: the client itself does not."""
        for left in reversed(range(READS_MAX)):
            with self._asked():
                try:
                    return ask()
                except exceptions.GenericError as error:
                    if not left or "body error" not in str(error).splitlines()[0]:
                        raise
        raise AssertionError  # the last try returned or raised

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._asked():
                yield
        except NotThere:
            raise Unreachable(f"{self.place} cannot be used: there is no such bucket") from None

    def _put(self, key: str, data: bytes, mode: PutMode) -> bool:
        try:
            with self._writing():
                obstore.put(self.small, self._path(key), data, mode=mode, use_multipart=False)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return False
        return True

    def _piece(self, key: str, start: int, length: int) -> bytes:
        try:
            piece = self._read(
                lambda: obstore.get_range(self.large, self._path(key), start=start, length=length)
            )
        except NotThere:
            self._check_there(key)
            raise
        if len(piece) != length:
            raise Unreachable(f"{self.place} sent {len(piece)} of {length} bytes of {key}")
        return bytes(piece)

    def _was_there(self) -> None:
        self._there_until = self.clock() + THERE_SECONDS

    def _check_there(self, key: str) -> None:
        """Raise Unreachable when the store itself is gone, not only one object of it."""
        if key == OWNER or self.clock() < self._there_until:
            return
        if self.get(OWNER) is None:
            raise Unreachable(f"{self.place} holds no artifacts: {OWNER} is missing there")

    def _path(self, key: str) -> str:
        return f"{self.prefix}/{key}".strip("/")

    def _key(self, meta: ObjectMeta) -> str:
        return meta["path"].removeprefix(self.prefix).lstrip("/")


def _entry(meta: ObjectMeta) -> Entry:
    since = meta["last_modified"].timestamp()
    return Entry(meta["size"], meta["e_tag"] or f"{since} {meta['size']}", since)


def _hashed(path: Path, piece_bytes: int, sha256: str) -> Iterator[bytes]:
    """Yield a file in pieces. Raises OSError at its end when it is not the one that was hashed."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(piece_bytes):
            found.update(piece)
            yield piece
    if found.hexdigest() != sha256:
        raise OSError(errno.EIO, f"{path} changed on its way up")


def _said(error: Exception) -> str:
    """Return what a server or the network said: one line, the same for one fault of any request."""
    text = str(error)
    if _NO_KEYS in text:
        return "this machine has no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    code, message = (re.search(f"<{word}>([^<]*)</{word}>", text) for word in ("Code", "Message"))
    if code is None:
        return _ASKED.sub("", text.splitlines()[0])[:WORDS_MAX]
    words = f"{code[1]}: {message[1]}" if message else code[1]
    hint = "; set the clock of this machine" if code[1] == "RequestTimeTooSkewed" else ""
    return f"{' '.join(words.split())[:WORDS_MAX]}{hint}"
