"""The same experiments made by two commits on one machine, compared artifact by artifact.

Run with ``python -m tests.compare_commits BEFORE AFTER [SPEC …]``. Each commit makes the tiny
experiments (random model, both rules of the gate) and every SPEC, a path in the repository, as it
stands in BEFORE. Equal content digests say that a change of the code's shape changed no number;
what is computed differs between processors, so no test can pin these digests. Takes about a minute
a commit, and beside it what the specs take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TINY = """
from pathlib import Path
from tests.tiny_experiment import make_experiment
make_experiment(Path("tiny"))
make_experiment(Path("tiny"), "strict", gate={"rule": "strict", "minSubfeatures": 1})
"""


@dataclass(frozen=True, order=True)
class Made:
    """One artifact: what it was asked to be, and the digest of what it came out as."""

    stage: str
    digest: str
    content: str


def main() -> int:
    """Print the artifacts of both commits side by side; return 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("specs", nargs="*", type=Path, help="such as examples/france")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = [_tree(commit, folder / commit) for commit in (options.before, options.after)]
        inputs = folder / "inputs"
        inputs.mkdir()
        _python(trees[0], inputs, "-c", TINY)
        specs = [inputs / "tiny" / "specs", *(trees[0] / spec for spec in options.specs)]
        before, after = (_made(tree, folder, specs) for tree in trees)
    return report(before, after)


def report(before: set[Made], after: set[Made]) -> int:
    """Print what both made and what one of them made alone; return 1 where there is any."""
    for made in sorted(before | after):
        word = "same" if made in before & after else "before" if made in before else "after"
        print(f"{word:7}{made.stage:14}{made.digest[:12]}  content {made.content[:12]}")
    print(f"{len(before & after)} same, {len(before - after)} before, {len(after - before)} after")
    return int(before != after or not before)


def _tree(commit: str, place: Path) -> Path:
    """Return a clone of the repository at a commit."""
    subprocess.run(["git", "clone", "-q", REPOSITORY, place], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=place, check=True)
    return place


def _made(tree: Path, folder: Path, specs: list[Path]) -> set[Made]:
    state = folder / f"state-{tree.name}"
    for spec in specs:
        # 1 says that something needs a human: what was made until then is compared all the same.
        words = ("-m", "loopscope", "--state", str(state), "run", str(spec), "--root", str(folder))
        _python(tree, folder, *words, accepted=(0, 1))
    manifests = (state / "artifacts").glob("*/*/manifest.json")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in manifests]
    return {Made(d["stage"], d["digest"], d["contentDigest"]) for d in documents}


def _python(tree: Path, cwd: Path, *words: str, accepted: tuple[int, ...] = (0,)) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=environment, check=False)
    if done.returncode not in accepted:
        raise SystemExit(f"{tree.name}: {' '.join(words[:4])} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
