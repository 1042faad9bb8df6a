"""Commands in a process of their own, for what needs tables: the server stays small and answers."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from loopscope.server.answers import Refused
from loopscope.server.page.site import Site

SECONDS_MAX = 300.0
WORDS_MAX = 2_000


class Apart:
    """Runs one command of Loopscope at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._free = asyncio.Lock()

    async def run(self, *words: str) -> bytes:
        """Return what a command printed; raises Refused with its words when it fails."""
        async with self._free:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "loopscope", "--state", str(self._site.state.path)),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "NO_COLOR": "1"},
            )
            try:
                async with asyncio.timeout(SECONDS_MAX):
                    said, refused = await process.communicate()
            except TimeoutError:
                raise Refused(503, f"{words[0]} took longer than {SECONDS_MAX:.0f} s") from None
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            return said
        text = refused.decode(errors="replace").strip()[-WORDS_MAX:]
        raise Refused(409, text or f"{words[0]} ended with {process.returncode}")
