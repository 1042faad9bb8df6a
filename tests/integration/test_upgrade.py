"""A finished state of an older Loopscope: nothing runs again in silence, and nothing is lost."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from loopscope.specs.actions import CODE_REVISIONS, Stage
from tests.integration.real import Place, eventually
from tests.upgrade_state import unpack

pytestmark = pytest.mark.integration

BEFORE: dict[Stage, int] = {"capture": 2, "decomposition": 2, "mapping": 3, "steering": 5}
OLDER = [stage for stage, revision in BEFORE.items() if revision < CODE_REVISIONS[stage]]
STAGES = {
    "capture": "tiny-capture", "coarse": "tiny-coarse", "fine": "tiny-fine",
    "mapping": "tiny-mapping", "steering": "tiny-steering",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    unpack(tmp_path)
    return Place(tmp_path)


def answer(place: Place, *words: str) -> str:
    code, output = place.call(*words)
    assert code == 0, output
    return output


def files(place: Place) -> tuple[str, ...]:
    return ("-f", str(place.specs), "--root", str(place.folder))


def planned(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer(place, "plan", *files(place), "-o", "json"))
    return found


def older(place: Place) -> dict[str, str]:
    """Return by object what it says of the rules that made its work; only of older ones."""
    with sqlite3.connect(f"file:{place.state}/state.db?mode=ro", uri=True) as connection:
        rows = connection.execute("select name, status from objects").fetchall()
    return {
        name: condition["message"]
        for name, status in rows
        for condition in json.loads(status)["conditions"]
        if (condition["type"], condition["status"], condition["reason"])
        == ("RulesCurrent", "False", "RulesChanged")
    }


def test_a_state_of_before_opens_runs_nothing_and_stays_readable_until_somebody_confirms(
    place: Place,
) -> None:
    before = place.payloads()
    assert "Inconclusive" in answer(place, "get", "experiments")
    document = planned(place)
    assert document["needsConfirmation"]
    found = {one["name"]: one for one in document["stages"]}
    assert {one["state"] for one in found.values()} <= {"to do", "unknown"}
    assert set(found) == set(STAGES.values())
    for one in found.values():
        assert one["estimatedSeconds"] is not None and one["estimatedFrom"] == "the run before"
        if one["kind"].lower() in OLDER:
            stage = one["kind"].lower()
            rule = f"{stage} revision {BEFORE[stage]} -> {CODE_REVISIONS[stage]}: "
            assert one["ruleChanged"].startswith(rule) and one["why"][0] == one["ruleChanged"]

    code, output = place.call("apply", *files(place))
    assert code == 1 and "ConfirmationNeeded" in output and "--confirm" in output
    assert all(name in output for name in STAGES.values())
    assert place.run() == (1, output), "run asks like apply"

    controller = place.start("controller")
    try:
        eventually(lambda: len(older(place)) == 6)
    finally:
        controller.send_signal(signal.SIGTERM)
        controller.communicate(timeout=90)
    assert len(place.jobs()) == 5 and {job["state"] for job in place.jobs()} == {"succeeded"}
    events = answer(place, "events")
    assert all(f"{stage} revision {BEFORE[stage]} -> " in events for stage in OLDER)
    assert "of older rules" in answer(place, "why", "experiment", "tiny")
    assert planned(place)["stages"] == document["stages"]
    assert place.call("apply", *files(place)) == (1, output)

    assert "Inconclusive" in answer(place, "describe", "experiment", "tiny")
    page = Path(answer(place, "report", "tiny").split(": ", 1)[1].strip()).read_text()
    assert f"steering revision 5 -&gt; {CODE_REVISIONS['steering']}" in page
    bundle = place.folder / "bundle"
    answer(place, "export", "tiny", str(bundle))
    assert (bundle / "steering_scores.parquet").exists() and (bundle / "pairs.parquet").exists()
    assert place.payloads() == before


def test_confirmed_everything_is_made_again_once_and_the_old_artifacts_stay(place: Place) -> None:
    before = place.payloads()
    code, output = place.call("run", str(place.specs), "--root", str(place.folder), "--confirm")
    assert code == 0, output + place.worker_log()
    for stage in OLDER:
        assert f"is made again: {stage} revision {BEFORE[stage]} -> " in output
    made = [job["stage"] for job in place.jobs()[5:]]
    assert sorted(set(made)) == sorted(set(made) | set(OLDER)), "all that an older rule had made"
    assert older(place) == {}
    assert {one["state"] for one in planned(place)["stages"]} == {"cached"}
    assert before.items() <= place.payloads().items()
    jobs = len(place.jobs())
    assert place.run()[0] == 0 and len(place.jobs()) == jobs
