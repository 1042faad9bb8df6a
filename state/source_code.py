"""The source code that a stage is made of, known without importing any of it.

A process keeps what it imported, while the files on disk may become those of another version. So
the files are read once, at the start, and what is imported later must still be as it was then.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loopscope.specs.canonical import digest
from loopscope.state.failures import TransientFailure
from loopscope.state.records import CODE_CHANGED

ROOMS = ("specs", "inputs", "state", "numerics", "worker")
"""The rooms from which a worker may import."""
PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+(loopscope[\w.]*)"
    r"(?:[ \t]+import[ \t]+(?:\(([^)]*)\)|([^\n#]*)))?",
    re.MULTILINE,
)


class CodeChanged(TransientFailure):
    """The files of Loopscope changed since the controller started."""

    def __init__(self, what: str) -> None:
        super().__init__(
            CODE_CHANGED,
            f"the files of Loopscope changed while the controller was running: {what}. Restart it "
            "(`loopscope controller` or `loopscope run`); nothing is lost",
        )


@dataclass(frozen=True)
class Module:
    """One source file: its sha256, and the modules of Loopscope that it names in imports."""

    sha256: str
    imports: frozenset[str]


@dataclass(frozen=True)
class SourceCode:
    """The source files that workers are made of, by module name, as they were at one moment."""

    package: Path
    modules: Mapping[str, Module]
    _hashes: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """By stage, once it was asked for: each start of a job asks."""

    @staticmethod
    def read(package: Path = PACKAGE) -> SourceCode:
        """Read every source file of the rooms below the folder of the package."""
        found = {}
        for room in ROOMS:
            for path in sorted((package / room).rglob("*.py")):
                name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
                found[name.removesuffix(".__init__")] = _module(path.read_bytes())
        return SourceCode(package, found)

    def of_stage(self, stage: str) -> str:
        """Return a hash of the sources that run a stage: its own, the runner's, all they import."""
        if stage not in self._hashes:
            names = self.modules_of(stage)
            self._hashes[stage] = digest({name: self.modules[name].sha256 for name in names})
        return self._hashes[stage]

    def modules_of(self, stage: str) -> list[str]:
        """Return the names of these modules, in order."""
        package = self.package.name
        found: set[str] = set()
        waiting = [f"{package}.worker.stages.{stage}.stage", f"{package}.worker.runner"]
        while waiting:
            name = waiting.pop()
            if name in self.modules and name not in found:
                found.add(name)
                waiting += [*self.modules[name].imports, name.rpartition(".")[0]]
        return sorted(found)

    def has_changed(self, name: str) -> bool:
        """Whether the file of a module changed; False for modules of other packages."""
        package, *parts = name.split(".")
        if package != self.package.name or not parts or parts[0] not in ROOMS:
            return False
        place = self.package.joinpath(*parts)
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        before = self.modules.get(name)
        try:
            now = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return before is not None
        return before is None or now != before.sha256


@functools.cache
def source_at_start() -> SourceCode:
    """Return the source as it was when this process first asked: ask at its start."""
    return SourceCode.read()


def _module(data: bytes) -> Module:
    return Module(hashlib.sha256(data).hexdigest(), frozenset(_imported(data.decode("utf-8"))))


def _imported(source: str) -> Iterable[str]:
    """Yield the modules of Loopscope that a source names, and names in them that may be modules."""
    for module, listed, plain in _IMPORT.findall(source):
        yield module
        for line in (listed or plain).splitlines():
            for name in line.partition("#")[0].split(","):
                word = name.split()
                if word:
                    yield f"{module}.{word[0]}"
