"""What is installed: one name, with every file of the tree, however the tree got here."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.tree import ROOMS
from tests.tree import ROOT as REPOSITORY

pytestmark = pytest.mark.integration
SECONDS_MAX = 180
NOT_THE_TREE = {".git", ".venv", ".venv-latest", ".loopscope", "build", "dist"}


def build(tree: Path, kind: str, out: Path) -> Path:
    """Build in a process of its own, as pip does but for the isolation, which needs a network."""
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(set(names)) == len(names)
    return {name for name in names if not name.partition("/")[0].endswith(".dist-info")}


def expected() -> set[str]:
    """Return the files of the package under their installed names; each room counts once."""
    found = set()
    for folder, installed in [("loopscope", ""), *((room, "loopscope/") for room in ROOMS)]:
        for parent, folders, names in os.walk(REPOSITORY / folder):  # links are not followed
            folders[:] = [name for name in folders if name != "__pycache__"]
            place = Path(parent).relative_to(REPOSITORY).as_posix()
            found |= {f"{installed}{place}/{name}" for name in names if not name.endswith(".pyc")}
    return found


def unpacked(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def without_links(folder: Path) -> Path:
    """Copy the tree as git writes it where there are no links: a file that holds the target."""
    tree = folder / "copy"

    def ignored(place, names):
        return NOT_THE_TREE & set(names) | {n for n in names if n.endswith("_cache")}

    shutil.copytree(REPOSITORY, tree, symlinks=True, ignore=ignored)
    for place in [*tree.glob("loopscope/*"), tree / "dev" / "loopscope"]:
        if place.is_symlink():
            target = place.readlink()
            place.unlink()
            place.write_text(str(target))
    return tree


@pytest.mark.parametrize("way", ["checkout", "sdist", "without links"])
def test_a_wheel_holds_one_name_and_every_file_of_the_tree(tmp_path, way):
    tree = REPOSITORY
    if way == "sdist":
        tree = unpacked(build(REPOSITORY, "sdist", tmp_path / "sdist"), tmp_path / "unpacked")
    elif way == "without links":
        tree = without_links(tmp_path)
    wheel = build(tree, "wheel", tmp_path / "wheel")
    found = files_of(wheel)
    assert {name.partition("/")[0] for name in found} == {"loopscope"}
    assert found == expected()
    assert "loopscope/py.typed" in found, "or a type checker believes nothing of it"


def test_an_installed_wheel_answers_without_a_checkout(tmp_path):
    wheel = build(REPOSITORY, "wheel", tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    asked = (
        "import loopscope, loopscope.worker.conversion as c; print(loopscope.__file__, c.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", asked], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for place in done.stdout.split():
        assert Path(place).is_relative_to(tmp_path / "site")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_can_be_installed_and_answers(tmp_path, kind):
    built = build(REPOSITORY, kind, tmp_path / "built")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(built)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *install], check=True, cwd=tmp_path
    )

    def answer(*words):
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=True
        ).stdout

    command = str(environment / "bin" / "loopscope")
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert answer(command, "--version") == f"loopscope {version}\n"
    assert "minCosine" in answer(command, "explain", "mapping.spec")
    place = answer(str(python), "-P", "-c", "import loopscope.worker as w; print(w.__file__)")
    assert Path(place.strip()).is_relative_to(site)
