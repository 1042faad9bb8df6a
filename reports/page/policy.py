"""Content security policies of a page, and the one script that a page may run."""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

SCRIPTS = Path(__file__).parent / "script"
STATIC_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Script:
    """A script as it stands in the page, and the policy that names its hash and no other."""

    text: Markup
    policy: str


@functools.cache
def script(*names: str) -> Script:
    """Return files of ``script/`` as one script, in this order, with single newlines.

    That is what the browser hashes.
    """
    read = ((SCRIPTS / name).read_text(encoding="utf-8") for name in names)
    text = "".join(part.replace("\r\n", "\n") for part in read)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(
        Markup(text),
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
    )
