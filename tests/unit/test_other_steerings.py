"""A steering that ended beside the one of the bundle is named: somebody may have looked at it."""

import math

import pytest

from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.registered import _name_others
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.views.registration import other_steerings
from tests.simulated import new_state

EXPERIMENT = Key("Experiment", "default", "france")
OWN = Key("Steering", "default", "france-steering")


def action(openings, samples=1):
    payload = {
        "openings": [{"text": f"o{n}"} for n in range(openings)],
        "samplesPerPrompt": samples,
    }
    return Action("steering", {"n": openings, "samples": samples}, payload)


@pytest.fixture
def connection(tmp_path):
    state = new_state(tmp_path / "state")
    with state.database.write() as connection:
        yield connection
    state.database.close()


def run(connection, work, now, key=OWN, *, ends=True):
    job, _ = jobs.enqueue(connection, work, key, 1, now=now)
    claimed = jobs.claim(connection, job, "w", 30.0, now=now)
    if ends:
        jobs.succeed(connection, job, claimed.token, now=now + 1)


def test_a_shorter_run_before_the_declared_one_is_remembered(connection):
    """Edited to twenty openings, looked at, edited back."""
    run(connection, action(20), now=100.0)
    run(connection, action(66), now=200.0)
    found = other_steerings(connection, EXPERIMENT, action(66).digest)
    assert [(one["openings"], one["ended_at"]) for one in found] == [
        (20, "1970-01-01T00:01:41.000Z")
    ]


def test_its_own_run_and_what_never_ended_and_what_others_ran_are_no_look(connection):
    run(connection, action(66), now=100.0)
    run(connection, action(20), now=200.0, ends=False)
    run(connection, action(30), now=300.0, key=OWN._replace(name="weather-steering"))
    run(connection, action(40), now=400.0, key=OWN._replace(namespace="other"))
    assert other_steerings(connection, EXPERIMENT, action(66).digest) == []


def said(steerings, unblinded=math.inf):
    record = {"registered_at": "2026-01-02T00:00:00.000Z"}
    findings = Findings()
    extract = {
        "chain": [],
        "records": [],
        **({} if steerings is None else {"steerings": steerings}),
    }
    _name_others(extract, record, unblinded, findings)
    return findings


@pytest.mark.parametrize(("day", "word"), [("01", "before"), ("03", "after")])
def test_each_is_said_with_its_size_and_when(day, word):
    one = {
        "digest": "d", "openings": 20, "samples_per_opening": 3,
        "ended_at": f"2026-01-{day}T00:00:00.000Z",
    }  # fmt: skip
    (line,) = said([one]).deviations
    assert "20 openings with 3 samples" in line and f"{word} it was registered" in line


def test_a_bundle_that_does_not_say_is_not_called_clean():
    assert said([]).deviations == [] and not said([]).left_out
    assert "whether another steering was looked at" in said(None).left_out


def test_one_that_ended_when_the_arms_had_their_names_is_after_unblinding():
    one = {
        "digest": "d", "openings": 20, "samples_per_opening": 3,
        "ended_at": "1970-01-01T00:01:41.000Z",
    }  # fmt: skip
    (early,), (late,) = said([one], 200.0).deviations, said([one], 100.0).deviations
    assert "after unblinding" not in early and late.endswith(", after unblinding")
