"""Action digests and the shapes of payloads stay as they are, unless a code revision is raised.

A digest that moves makes finished work be done again everywhere. So a change of code that computes
the same must leave these alone; one that computes something else raises its stage's revision, and
only then ``GOLDEN`` is written anew: ``python -m tests.unit.test_golden_digests``.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.pipeline import PIPELINE, SHARED
from loopscope.state.db import jobs
from loopscope.state.records import JobRecord
from tests.simulated import Simulation, canonical, experiment_spec

ASKED_OF = {
    "captureRef": {"name": "france-capture"},
    "mappingRef": {"name": "france-mapping"},
    "text": "We went to",
}
QUESTIONS = {
    "latents": {"latents": {"coarse": [1], "fine": [2, 3]}},
    "steered": {
        "steeringRef": {"name": "france-steering"},
        "steered": {"arm": "multi", "strength": 0.5},
    },
}
GOLDEN = Path(__file__).parents[1] / "data" / "golden_digests.json"


def of_now(folder: Path) -> dict[str, Any]:
    """Return, for each job of a small experiment, its digest and the shape of its payload.

    The experiment has all nodes, and two questions are asked of it: no stage is missing.
    """
    simulation = Simulation(folder / "state")
    spec = experiment_spec()
    optional = [node.name for node in PIPELINE if node.optional]
    simulation.apply(experiment_spec(**{name: spec.get(name, {}) for name in optional}))
    simulation.settle()
    for name, asked in QUESTIONS.items():
        simulation.apply(canonical("Question", ASKED_OF | asked), name, "Question")
    simulation.settle()
    with simulation.state.database.read() as connection:
        ended = [
            job
            for head in jobs.listed(connection, ended=True)
            if (job := jobs.get(connection, head.id)) is not None
        ]
    return {
        "revisions": dict(CODE_REVISIONS),
        "jobs": {
            _name(job): {"stage": job.stage, "digest": job.digest, "payload": shape(job.payload)}
            for job in ended
        },
    }


def _name(job: JobRecord) -> str:
    """Return the object's name; of a shared artifact, which belongs to none, its stage."""
    return job.stage if job.stage in {one.stage for one in SHARED} else job.object.name


def shape(value: Any) -> Any:
    """Return a payload with the types of its values; of a list, that of its first item."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_digests_and_payloads_are_those_of_before(tmp_path):
    known, found = json.loads(GOLDEN.read_text()), of_now(tmp_path)
    assert {job["stage"] for job in found["jobs"].values()} == set(CODE_REVISIONS)
    assert found["revisions"] == known["revisions"], "a revision was raised: write GOLDEN anew"
    assert found["jobs"] == known["jobs"], "this would make finished work be done again"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(of_now(Path(folder)), indent=1, sort_keys=True) + "\n")
