"""The index of a site of bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from loopscope.reports.page.html import environment
from loopscope.reports.page.policy import STATIC_POLICY


@dataclass(frozen=True)
class BundleLine:
    """A bundle by the name of its folder, with its answers and the files that it holds."""

    name: str
    experiment: str
    gate: str
    verdict: str
    files: tuple[str, ...]

    @property
    def address(self) -> str:
        """Where its files lie, below the index."""
        return f"/{quote(self.name, safe='')}"


def render_bundles(lines: Sequence[BundleLine]) -> str:
    """Return the index as a page that has no script and asks nothing but its links."""
    template = environment().get_template("bundles.html.j2")
    return template.render(lines=lines, static_policy=STATIC_POLICY, quote=quote)
