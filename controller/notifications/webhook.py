"""A webhook: one signed request, after the Standard Webhooks specification.

``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from loopscope.controller.notifications.notices import Notice
from loopscope.controller.settings import NotificationSettings
from loopscope.state.failures import TerminalFailure

SILENT_SECONDS_MAX = 10.0
"""A server that says nothing for so long is taken to be away."""
REQUEST_SECONDS_MAX = 30.0
"""However slowly it speaks, a request ends after this."""
SECRET_PREFIX = "whsec_"
TRY_LATER = frozenset((408, 425, 429))

Answer = Literal["taken", "refused", "away"]


@dataclass(frozen=True)
class Said:
    """What came of a request; ``why`` in words."""

    answer: Answer
    why: str = ""


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def secret_of(settings: NotificationSettings, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the secret, base64 behind ``whsec_`` or else as it is. Raises TerminalFailure."""
    given = environment.get(settings.secret_env, "")
    if not given:
        raise TerminalFailure(
            "SecretMissing",
            f"notifications are signed with the secret in {settings.secret_env}, which is not set; "
            "set it, or take `notifications` out of the limits file",
        )
    if not given.startswith(SECRET_PREFIX):
        return given.encode()
    try:
        return base64.b64decode(given.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise TerminalFailure(
            "SecretMissing",
            f"{settings.secret_env} holds no base64 behind {SECRET_PREFIX}; copy it again",
        ) from None


@dataclass(frozen=True)
class Webhook:
    """A URL and the secret that signs what is sent there. Redirects are not followed."""

    url: str
    secret: bytes
    silent_seconds_max: float = SILENT_SECONDS_MAX
    request_seconds_max: float = REQUEST_SECONDS_MAX

    def send(self, notice: Notice, now: float) -> Said:
        """Send one notice; wait at most ``request_seconds_max``."""
        body, timestamp = notice.body(), int(now)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "loopscope",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.secret, notice.id, timestamp, body),
        }
        parts = urlsplit(self.url)
        connection = self._connection(parts.scheme, parts.netloc.rpartition("@")[2])
        end = threading.Timer(self.request_seconds_max, _cut, [connection])
        end.daemon = True
        end.start()
        try:
            path = parts.path or "/"
            query = f"?{parts.query}" if parts.query else ""
            connection.request("POST", path + query, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Said("away", f"{type(error).__name__}: {error}")
        finally:
            end.cancel()
            connection.close()
        if 200 <= status < 300:
            return Said("taken")
        is_later = status >= 500 or status in TRY_LATER
        return Said("away" if is_later else "refused", f"HTTP {status}")

    def _connection(self, scheme: str, place: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(place, timeout=self.silent_seconds_max)
        return http.client.HTTPSConnection(
            place, timeout=self.silent_seconds_max, context=ssl.create_default_context()
        )


def _cut(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(2)
