"""An endpoint of the shape of OpenAI's chat completions: one request, one answer, or why not."""

from __future__ import annotations

import email.message
import http.client
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urlsplit

from loopscope.specs.json_values import Json, JsonObject
from loopscope.state.failures import TerminalFailure, TransientFailure

ALLOWED_VARIABLE = "LOOPSCOPE_JUDGE_ENDPOINTS"
ANSWER_BYTES_MAX = 256 * 1024
ANSWER_CHARACTERS_MAX = 2_000
TIMEOUT_SECONDS = 60.0
TRIES_MAX = 5
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 60.0
BUSY = (408, 409, 425, 429)
MESSAGE_CHARACTERS_MAX = 200
HIDDEN = "[key]"


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered; ``text`` is empty where it gave none for this question."""

    text: str
    served: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Clock:
    """Seconds that pass, and waiting; tests have one of their own."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep


class _TryAgain(Exception):
    """The endpoint may answer the next time; ``seconds`` is when, if it says so."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key is sent to the address that was allowed and to no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow nothing: urllib raises the answer as an error then."""


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is reached. The key is read when it is needed and shown nowhere."""

    address: str
    key_variable: str | None
    clock: Clock = field(default_factory=Clock)
    timeout_seconds: float = TIMEOUT_SECONDS

    def check_allowed(self) -> None:
        """Raise TerminalFailure ``JudgeNotAllowed`` unless this machine allows the endpoint."""
        allowed = os.environ.get(ALLOWED_VARIABLE, "").split()
        if self.address.rstrip("/") not in [one.rstrip("/") for one in allowed]:
            raise TerminalFailure(
                "JudgeNotAllowed",
                f"texts would be sent to {self.address}, which {ALLOWED_VARIABLE} does not allow "
                f"(it allows {', '.join(allowed) or 'none'}); set it to the addresses that may be "
                "asked, separated by spaces, where the controller starts, then `loopscope retry`",
            )
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise TerminalFailure(
                "JudgeNotAllowed",
                f"apiKeyVariable names {self.key_variable}, which is not set where the controller "
                "started; set it there, then `loopscope retry`",
            )

    def ask(self, body: JsonObject, waiting: Callable[[], None] = lambda: None) -> Reply:
        """Return the answer to one question, after up to five tries.

        ``waiting`` is called while it waits. Raises TerminalFailure ``JudgeRefused``,
        TransientFailure ``JudgeUnavailable``.
        """
        why = ""
        for number in range(TRIES_MAX):
            try:
                return self._asked(body)
            except _TryAgain as again:
                why = str(again)
                pause = PAUSE_SECONDS * 2**number if again.seconds is None else again.seconds
                if number + 1 < TRIES_MAX:
                    self.rest(min(pause, PAUSE_SECONDS_MAX), waiting)
        raise TransientFailure(
            "JudgeUnavailable",
            f"{self.address} did not answer in {TRIES_MAX} tries: {why}; answers so far are kept",
        )

    def rest(self, seconds: float, waiting: Callable[[], None]) -> None:
        """Wait, a second at a time."""
        ends_at = self.clock.now() + seconds
        while (left := ends_at - self.clock.now()) > 0:
            waiting()
            self.clock.wait(min(1.0, left))

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_variable, "") if self.key_variable else ""

    def _shown(self, text: str) -> str:
        """Return a text of the endpoint's without the key, in case it sends it back."""
        return text.replace(self._key, HIDDEN) if self._key else text

    def _asked(self, body: JsonObject) -> Reply:
        request = urllib.request.Request(
            f"{self.address.rstrip('/')}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        ends_at = time.monotonic() + self.timeout_seconds
        try:
            with self._opener().open(request, timeout=self.timeout_seconds) as answer:
                content = _read(answer, ends_at)
        except urllib.error.HTTPError as error:
            with error:
                raise self._of_status(error, ends_at) from None
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(self._shown(f"{type(error).__name__}: {error}")) from None
        return self._reply(content)

    def _opener(self) -> urllib.request.OpenerDirector:
        """Return what sends requests; what stays on this machine goes through no proxy."""
        proxies = [urllib.request.ProxyHandler({})] if is_loopback(self.address) else []
        return urllib.request.build_opener(_NoRedirects(), *proxies)

    def _of_status(self, error: urllib.error.HTTPError, ends_at: float) -> Exception:
        try:
            said = _read(error, ends_at).decode("utf-8", "replace")
        except (_TryAgain, OSError, http.client.HTTPException):
            said = ""
        words = self._shown(" ".join(said.split()))[:MESSAGE_CHARACTERS_MAX]
        if error.code in BUSY or error.code >= 500:
            return _TryAgain(f"HTTP {error.code} {words}", _seconds(error.headers))
        if 300 <= error.code < 400:
            words = "it leads elsewhere, which is not followed; name the address that answers"
        return TerminalFailure("JudgeRefused", f"{self.address} says HTTP {error.code}: {words}")

    def _reply(self, content: bytes) -> Reply:
        """Read an answer. What is no answer of this shape at all is asked for again."""
        try:
            found = json.loads(content)
            choices = found["choices"]
            first = choices[0] if choices else {}
            message = first.get("message") or {}
            text, usage = message.get("content"), found.get("usage") or {}
            counts = [_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _TryAgain("what it sent is no chat completion") from None
        plain = self._shown(text).strip()[:ANSWER_CHARACTERS_MAX] if isinstance(text, str) else ""
        served = found.get("model")
        return Reply(
            plain.encode("utf-8", "replace").decode(),
            self._shown(served)[:MESSAGE_CHARACTERS_MAX] if isinstance(served, str) else "",
            *counts,
        )


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(answer: IO[bytes], ends_at: float) -> bytes:
    """Return an answer's bytes, which must end in time and be few."""
    content = b""
    while part := answer.read(16 * 1024):
        content += part
        if len(content) > ANSWER_BYTES_MAX:
            raise _TryAgain(f"its answer is longer than {ANSWER_BYTES_MAX:,} bytes")
        if time.monotonic() > ends_at:
            raise _TryAgain("its answer did not end in time")
    return content


def _count(value: Json) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(headers: email.message.Message) -> float | None:
    """Return after how many seconds an endpoint wants to be asked again, if it says a number."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
