"""The address of artifacts in a bucket: a URL, and what else the client must be told."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from loopscope.specs.sizes import byte_count
from loopscope.state.artifacts.bucket.copies import COPIES_BYTES_MAX
from loopscope.state.failures import TerminalFailure

if TYPE_CHECKING:
    from loopscope.state.artifacts.bucket.client import Bucket

SHOWN_CHARACTERS_MAX = 300
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_WORDS = ("endpoint", "region", "copies", "owner")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
SMALL_SECONDS, LARGE_SECONDS = 4, 60
"""How long a request may take, and for how long it is tried again. For a small one a transaction
may wait."""
RETRIES_MAX = 8


@dataclass(frozen=True)
class Address:
    """Where artifacts lie. It holds no secret: those stand in the environment."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    copies_bytes_max: int = COPIES_BYTES_MAX
    owner: str | None = None
    """The state that artifacts which are there already belong to."""

    def __str__(self) -> str:
        """Return the URL without what stands behind the ``?``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def written(self) -> str:
        """Return the URL as it is kept."""
        words = {
            "endpoint": self.endpoint,
            "region": self.region,
            "copies": self.copies_bytes_max if self.copies_bytes_max != COPIES_BYTES_MAX else None,
        }
        query = urlencode({word: value for word, value in words.items() if value is not None})
        return f"{self}?{query}" if query else str(self)


def address_of(written: str) -> Address:
    """Read ``s3://bucket/prefix``, with words behind a ``?``. Raises TerminalFailure."""
    try:
        parts = urlsplit(written)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise _refused(written, "is no URL") from None
    if parts.scheme != "s3":
        raise _refused(written, f"is no s3:// URL, but one of {parts.scheme or 'a file'}")
    if "@" in parts.netloc + parts.path:  # a secret may have slashes
        raise _refused(written, "holds a key; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not _BUCKET.fullmatch(parts.netloc):
        raise _refused(written, "has no bucket of 3 to 63 small letters, digits, dots and dashes")
    prefix = parts.path.strip("/")
    if parts.fragment or (prefix and not _PREFIX.fullmatch(prefix)):
        raise _refused(written, "has a prefix with other signs than letters, digits and . _ = -")
    unknown = sorted(query.keys() - set(_WORDS))
    if unknown:
        raise _refused(written, f"has the unknown word {unknown[0]!r} behind the ?")
    endpoint = query.get("endpoint")
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise _refused(written, "has an endpoint that is not like https://host:port")
    copies = byte_count(query["copies"]) if "copies" in query else COPIES_BYTES_MAX
    if copies is None:
        raise _refused(written, "has copies that are no size like 200GB")
    return Address(parts.netloc, prefix, endpoint, query.get("region"), copies, query.get("owner"))


def bucket_at(address: Address) -> Bucket:
    """Return the client of an address; nothing is asked yet.

    Raises ModuleNotFoundError, and TerminalFailure when the environment says what cannot be.
    """
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    from loopscope.state.artifacts.bucket.client import Bucket

    endpoint = address.endpoint or _endpoint_of_environment()
    told: dict[str, Any] = {"disable_bulk_delete": True}  # not all servers have it
    if endpoint is not None:
        told["endpoint"] = endpoint.rstrip("/")
    if address.region is not None:
        told["region"] = address.region
    try:
        small, large = (
            S3Store(
                address.bucket,
                client_options={
                    "allow_http": (endpoint or "").startswith("http://"),
                    "connect_timeout": timedelta(seconds=2),
                    "timeout": timedelta(seconds=seconds),
                },
                retry_config={
                    "max_retries": RETRIES_MAX,
                    "retry_timeout": timedelta(seconds=seconds),
                },
                **told,
            )
            for seconds in (SMALL_SECONDS, LARGE_SECONDS)
        )
    except BaseError as error:
        said = str(error).splitlines()[0].removeprefix("Generic S3 error: ")
        raise TerminalFailure(
            "InvalidArtifactStore",
            f"{address}: {said}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, both, and look "
            "at the other variables that begin with AWS_",
        ) from None
    return Bucket(small, large, str(address), address.prefix)


def _endpoint_of_environment() -> str | None:
    for name in _ENDPOINTS:
        if endpoint := os.environ.get(name):
            if not _ENDPOINT.fullmatch(endpoint):
                raise TerminalFailure(
                    "InvalidArtifactStore", f"{name} is not like https://host:port; set it so"
                )
            return endpoint
    return None


def _refused(written: str, why: str) -> TerminalFailure:
    shown = re.sub(r"://.*@", "://***@", written)[:SHOWN_CHARACTERS_MAX]
    return TerminalFailure(
        "InvalidArtifactStore",
        f"{shown} {why}; expected s3://bucket/prefix, with ?endpoint=https://host:port for another "
        "server than Amazon's, region=… and copies=200GB (how much may be kept on this machine)",
    )
