"""The code whose tests are measured: five rooms to sample from, six modules taken whole."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

ROOMS: dict[str, tuple[str, ...]] = {
    "state": ("state/**/*.py",),
    "controller": ("controller/**/*.py",),
    "reconcilers": ("reconcilers/*.py",),
    "numerics": (
        *(f"numerics/{package}/*.py" for package in ("statistics", "gate", "verdict")),
        *(
            f"numerics/latents/{name}.py"
            for name in ("features", "permutation", "same_cosine", "splits")
        ),
        *(f"numerics/steering/{name}.py" for name in ("budget", "scores", "shift")),
    ),
    "worker": tuple(
        f"worker/{name}.py"
        for name in (
            *("__main__", "companions", "context", "failing", "guardian", "import_guard", "lease"),
            *("manifest", "memory", "preflights", "progress", "refusing", "runner", "serving"),
            *("shards", "stop", "warm"),
        )
    ),
}
"""Strata of the sample, as patterns of files: of numerics the statistics and the gate, of the
worker what it does for a job whatever the stage."""

WHOLE: tuple[str, ...] = (
    "controller/reconcile/commit.py",
    "state/artifacts/publication.py",
    "controller/jobs/leases.py",
    "controller/jobs/scheduling.py",
    "numerics/gate/rule.py",
    "numerics/verdict/decision.py",
)
"""Modules of which every mutant is tried."""

TESTS: tuple[str, ...] = ("tests/unit/test_*.py", "tests/simulation/test_seeds.py")
"""Files of the tests that mutants are tried against; those marked ``integration`` are left out."""


def files_of(patterns: tuple[str, ...], root: Path = ROOT) -> list[str]:
    """Return the files that match, relative to the root, sorted; no package files."""
    found = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(path.relative_to(root).as_posix() for path in found if path.name != "__init__.py")
