"""Answers: JSON documents, and refusals as a ``Status`` of the Kubernetes API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import chain

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response, StreamingResponse

from loopscope.specs.json_values import Json, JsonObject, without_nan
from loopscope.specs.keys import API_VERSION
from loopscope.state.failures import Failure, TransientFailure

GROUP, VERSION = API_VERSION.split("/")
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}

SENT_BYTES_MAX = 128 * 1024
"""Of a long answer, at a time."""
PIECES_AT_ONCE = 2
"""In the making. More would only wait for one another, and each thread keeps the room it had."""
_ENDED = b""


class Refused(Exception):
    """A request that is refused; nothing was changed."""

    def __init__(
        self,
        code: int,
        message: str,
        reason: str | None = None,
        details: Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "Unknown")
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    @property
    def document(self) -> JsonObject:
        """The refusal as a ``Status``."""
        return status("Failure", self.code, self.message, self.reason, self.details)

    def response(self) -> Response:
        """Return the refusal as a response."""
        return as_json(self.document, self.code, self.headers)


def status(
    word: str,
    code: int,
    message: str = "",
    reason: str = "",
    details: Mapping[str, Json] | None = None,
) -> JsonObject:
    """Return a ``Status``; ``word`` is Success or Failure."""
    found: JsonObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": word}
    if message:
        found["message"] = message
    if reason:
        found["reason"] = reason
    if details:
        found["details"] = dict(details)
    return {**found, "code": code}


def as_json(
    document: Mapping[str, object], code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a document as a response."""
    return Response(encoded(document), code, headers, media_type="application/json")


async def in_pieces(pieces: Iterator[bytes], makers: CapacityLimiter) -> Response:
    """Return JSON in pieces as a response; each is made, in a thread, when the last one is sent.

    Raises what the first piece raises.
    """
    first = await to_thread.run_sync(next, pieces, limiter=makers)
    return StreamingResponse(
        _handed_on(chain([first], pieces), makers), media_type="application/json"
    )


async def _handed_on(pieces: Iterator[bytes], makers: CapacityLimiter) -> AsyncIterator[memoryview]:
    """Yield pieces in parts: a connection buffers all that it is given at once, some times.

    One piece is held while a client takes it, and no other and no copy.
    """
    while piece := await to_thread.run_sync(next, pieces, _ENDED, limiter=makers):
        whole = memoryview(piece)
        for start in range(0, len(whole), SENT_BYTES_MAX):
            yield whole[start : start + SENT_BYTES_MAX]
        del piece, whole  # the next one is made without it


def encoded(document: Mapping[str, object]) -> bytes:
    """Return a document as JSON in ASCII; NaN and infinities, which JSON has not, as null."""
    try:
        return json.dumps(document, allow_nan=False).encode()
    except ValueError:
        return json.dumps(without_nan(document)).encode()


def not_found(plural: str, name: str) -> Refused:
    """Return the refusal of a name that no object has, in the words of Kubernetes."""
    details: JsonObject = {"name": name, "group": GROUP, "kind": plural}
    return Refused(404, f'{plural}.{GROUP} "{name}" not found', details=details)


def refusal_of(failure: Failure) -> Refused:
    """Return a failure of the store as a refusal; the reason stays the failure's own."""
    code = 503 if isinstance(failure, TransientFailure) else 409
    return Refused(code, failure.message, failure.reason)
