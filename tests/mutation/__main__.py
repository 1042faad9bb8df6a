"""``python -m tests.mutation``: small wrong changes of the code, against the tests of their lines.

The first run traces every test once (``--map``), which takes several times as long as the tests
do. Then the sample is tried, then every mutant of the modules that are taken whole. A record
holds what was tried, by the version of its file; an interrupted run goes on. ``--again`` tries
survivors once more, ``--like TEXT`` the mutants whose name holds the text, recorded or not.
``--report`` writes the score into the page and tries nothing. The exit code is 1 when a trial
itself went wrong; that one is not recorded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.mutation import covering
from tests.mutation.forks import Children
from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.recording import SURVIVED, Record, Trial
from tests.mutation.reporting import Reason, read_reasons, replaced, section
from tests.mutation.rounds import Round
from tests.mutation.sampling import sample
from tests.mutation.scope import ROOMS, ROOT, TESTS, WHOLE, files_of
from tests.mutation.trials import Sources

BUILD = ROOT / "build" / "mutation"
IMPORTED_ONCE = (
    *(
        "alembic",
        "hypothesis",
        "pandas",
        "pyarrow",
        "rich",
        "sae_lens",
        "scipy.stats",
        "sqlalchemy",
    ),
    *("torch", "transformer_lens", "transformers", "typer"),
)
"""What takes long to import; children inherit it, and import ours anew."""
APART = "LOOPSCOPE_MUTATION_APART"


def main() -> int:
    """Try mutants, or report; return the exit status."""
    options = _options()
    sources = Sources(ROOT)
    mutants = {
        room: [m for path in files_of(patterns) for m in mutants_of(path, sources.of(path))]
        for room, patterns in ROOMS.items()
    }
    if options.report:
        known = _known(options.record, mutants, sources)
        groups = _groups(mutants, options.sample, options.seed, known)
        text = section(groups, known, _reasons())
        options.report.write_text(replaced(options.report.read_text(), text))
        return 0
    _live_apart()
    return _try(options, sources, mutants)


def _try(options: argparse.Namespace, sources: Sources, mutants: dict[str, list[Mutant]]) -> int:
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    broken: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="loopscope-mutation-") as scratch:
        with closing(Children(Path(scratch))) as children:
            for line in covering.measure(ROOT, options.map, children, options.processes):
                print(line, flush=True)
        one = Round(
            sources=sources,
            files=sorted({m.path for each in mutants.values() for m in each}),
            tests=covering.load(ROOT, options.map),
            record=Record(options.record),
            commit=commit,
            processes=options.processes,
            seconds=options.seconds,
            scratch=Path(scratch),
            test_files=files_of(TESTS),
            say=partial(print, flush=True),
        )
        while wanted := _wanted(options, mutants, _known(options.record, mutants, sources), broken):
            print(f"{len(wanted)} mutants to try", flush=True)
            broken |= one.try_all(wanted, warm=not options.cold)
            if options.again or options.like:
                break
    return int(bool(broken))


def _known(path: Path, mutants: dict[str, list[Mutant]], sources: Sources) -> dict[str, Trial]:
    """Return the recorded trials of the sources as they are."""
    digests = {m.path: sources.digest(m.path) for each in mutants.values() for m in each}
    return {
        key: trial
        for (key, digest), trial in Record(path).trials().items()
        if digest == digests.get(key.partition(" ")[0])
    }


def _reasons() -> dict[str, Reason]:
    return read_reasons(Path(__file__).with_name("survivors.toml"))


def _wanted(
    options: argparse.Namespace,
    mutants: dict[str, list[Mutant]],
    known: dict[str, Trial],
    broken: set[str],
) -> list[Mutant]:
    if options.like:
        everything = [mutant for each in mutants.values() for mutant in each]
        return [mutant for mutant in everything if options.like in mutant.key]
    groups = _groups(mutants, options.sample, options.seed, known)
    drawn = list({mutant.key: mutant for each in groups.values() for mutant in each}.values())
    if options.again:
        equivalent = {key for key, reason in _reasons().items() if reason.equivalent}
        return [
            mutant
            for mutant in drawn
            if mutant.key in known
            and known[mutant.key].outcome in SURVIVED
            and mutant.key not in equivalent
        ]
    return [mutant for mutant in drawn if mutant.key not in known and mutant.key not in broken]


def _groups(
    mutants: dict[str, list[Mutant]], size: int, seed: int, known: dict[str, Trial]
) -> dict[str, list[Mutant]]:
    """Return the rows of the report: the sample, its rooms, and the modules taken whole."""
    unviable = {key for key, trial in known.items() if trial.outcome == "unviable"}
    drawn = sample(mutants, size, seed, unviable)
    keys = {mutant.key for mutant in drawn}
    groups = {
        f"sample of {len(drawn):,} from {sum(map(len, mutants.values())):,} (seed {seed})": drawn
    }
    for room, each in mutants.items():
        groups[f"… `{room}/`"] = [mutant for mutant in each if mutant.key in keys]
    for path in WHOLE:
        groups[f"all of `{path}`"] = [
            m for each in mutants.values() for m in each if m.path == path
        ]
    return groups


def _live_apart() -> None:
    """Go on in a process namespace of its own if there are such: a mutant may kill anything."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if APART in os.environ or shutil.which("unshare") is None:
        return
    if subprocess.run([*apart, "true"], capture_output=True).returncode == 0:
        os.environ[APART] = "1"
        os.execvp("unshare", [*apart, sys.executable, "-m", "tests.mutation", *sys.argv[1:]])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=1000, help="how many mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--record", type=Path, default=BUILD / "record.jsonl")
    parser.add_argument("--map", type=Path, default=BUILD / "map", help="a folder of traced tests")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"),
        help="try tests of so many traced seconds at most against one mutant",
    )  # fmt: skip
    parser.add_argument(
        "--cold", action="store_true", help="try each mutant in a process that imports it anew"
    )
    parser.add_argument("--again", action="store_true", help="try survivors once more")
    parser.add_argument("--like", help="try the mutants whose name holds this text")
    parser.add_argument("--report", type=Path, nargs="?", const=ROOT / "docs" / "reliability.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
