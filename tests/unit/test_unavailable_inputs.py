"""An outage and a typo: what could not be checked is said, and nobody waits for ever."""

import pytest

from loopscope.controller.reconcile.resolution import TRIES_MAX
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import describe_model
from loopscope.state.records import UNAVAILABLE
from loopscope.views.settled import family, waits_for_unavailable
from tests.command_line import called
from tests.fake_hub import FakeHub
from tests.simulated import Simulation, capture_spec, experiment_spec
from tests.tiny_experiment import make_experiment

OUTAGE = {"facts": None, "reason": "HubUnreachable", "message": "no route"}
NOWHERE = "http://127.0.0.1:9"
MODEL = {"name": "google/gemma-2-2bb"}


@pytest.fixture
def cut_off(tmp_path):
    """An experiment whose model nobody can find out about, looked at once."""
    simulation = Simulation(tmp_path / "state")
    simulation.inputs.answers["tiny"] = OUTAGE
    simulation.apply(experiment_spec(model={"name": "tiny"}))
    simulation.step()
    simulation.step()
    return simulation


def stuck(simulation):
    with simulation.state.database.read() as connection:
        records = family(connection, [simulation.get("france").key])
        return waits_for_unavailable(connection, records)


def ask_again(simulation, times=1):
    for _ in range(times):
        simulation.clock.advance(simulation.settings.resolve_retry_seconds + 1)
        simulation.step()
        simulation.step()


def test_after_some_tries_an_input_counts_as_unavailable_and_nothing_can_go_on(cut_off):
    ask_again(cut_off, TRIES_MAX - 2)
    assert cut_off.reason("france-capture") == "Resolving" and not stuck(cut_off)
    ask_again(cut_off)
    assert cut_off.reason("france-capture") == UNAVAILABLE and stuck(cut_off)
    assert "asked 4 times in vain" in cut_off.words()["france-capture"]
    assert "HubUnreachable: no route" in cut_off.words()["france"]
    assert not cut_off.get("france-capture").stalled, "nobody needs to act: it may come back"


def test_it_is_asked_for_on_and_writes_nothing_meanwhile(cut_off):
    ask_again(cut_off, TRIES_MAX)
    before = cut_off.rows()
    ask_again(cut_off, 3)
    assert cut_off.rows() == before
    del cut_off.inputs.answers["tiny"]
    ask_again(cut_off)
    assert len(cut_off.settle()) == 6 and cut_off.get("france").ready


def test_an_answer_in_between_begins_the_count_anew(cut_off):
    ask_again(cut_off, TRIES_MAX - 2)
    cut_off.inputs.answers["tiny"] = {"facts": None, "reason": "InputChanging", "message": "…"}
    ask_again(cut_off, TRIES_MAX)
    assert cut_off.reason("france-capture") == "Resolving", "a writer at work is no outage"
    cut_off.inputs.answers["tiny"] = OUTAGE
    ask_again(cut_off)
    assert cut_off.reason("france-capture") == "Resolving"


def test_where_asking_cannot_help_it_is_said_at_once(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.inputs.answers["tiny"] = {**OUTAGE, "reason": "HubOffline"}
    simulation.apply()
    simulation.step()
    simulation.step()
    assert simulation.reason("france-capture") == UNAVAILABLE and stuck(simulation)


def test_as_long_as_something_moves_nothing_is_given_up(cut_off):
    cut_off.apply(capture_spec(model={"name": "known"}), "other", "Capture")
    ask_again(cut_off, TRIES_MAX)
    assert cut_off.reason("other") in ("JobRunning", "RetryingLater")
    with cut_off.state.database.read() as connection:
        keys = [cut_off.get("france").key, cut_off.get("other").key]
        assert not waits_for_unavailable(connection, family(connection, keys))


# -- what commands say --------------------------------------------------------------------


def command(folder, *words, **environment):
    own = {"LOOPSCOPE_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    own |= {"HF_HUB_OFFLINE": "0", **environment}
    done = called("--state", folder / "state", *words, **own)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def specs(tmp_path):
    make_experiment(tmp_path, model=MODEL)
    return [str(tmp_path / "specs"), "--root", str(tmp_path)]


@pytest.mark.parametrize("words", [["apply", "--dry-run", "-f"], ["plan", "-f"], ["apply", "-f"]])
def test_what_only_a_hub_knows_is_said_to_be_unchecked(tmp_path, specs, words):
    code, _, error = command(tmp_path, *words, *specs)
    assert code == 0
    place = f"{tmp_path}/specs/tiny.yaml:7:5: spec.model.name: not checked"
    assert f"{place}: only the hub knows whether there is a model google/gemma-2-2bb;" in error
    assert error.count("not checked") == 1, "the dictionaries are local"


def test_a_run_that_cannot_go_on_ends_with_a_status_of_its_own(tmp_path, specs):
    code, out, error = command(tmp_path, "run", *specs, HF_HUB_OFFLINE="1")
    assert code == 3
    assert "capture/tiny-capture is not done: InputUnavailable: HubOffline" in out
    assert error.splitlines()[-1].endswith(f"run {' '.join(specs)}")
    assert "kept: 0 of 5 stages. Go on with: loopscope --state" in error


def test_a_run_ends_when_its_time_is_over(tmp_path, specs):
    code, out, error = command(tmp_path, "run", *specs, "--timeout", "2s", HF_ENDPOINT=NOWHERE)
    assert code == 124
    assert "experiment/tiny is not done: ChildrenNotReady" in out
    assert error.splitlines()[-1].startswith("timed out after 2s; kept: 0 of 5 stages")


def test_a_run_stops_before_its_limit_with_a_status_that_says_go_on(tmp_path, specs):
    limit = ("--stop-before", "17s")  # 15 of them are kept for stopping
    code, _, error = command(tmp_path, "run", *specs, *limit, HF_ENDPOINT=NOWHERE)
    assert code == 75
    assert "stopped before the time limit; kept: 0 of 5 stages. Go on with" in error
    assert "--stop-before" not in error.splitlines()[-1]


def test_a_timeout_that_is_no_duration_is_refused(tmp_path, specs):
    code, _, error = command(tmp_path, "run", *specs, "--timeout", "soon")
    assert code == 2 and "is not a duration" in error


# -- which failure of the network it was --------------------------------------------------


def refusal(hub, name="tiny/model", **source):
    model = {"name": name, **({"source": {"hub": name, **source}} if source else {})}
    with pytest.raises((InputRefused, ResolutionPending)) as told:
        describe_model(model, hub=hub, memo=HashMemo())
    return type(told.value).__name__, getattr(told.value, "reason", ""), told.value.message


def test_unreachable_absent_gated_and_without_that_revision_are_four_things(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FakeHub() as fake:
        fake.add("tiny/model", {"config.json": b"{}"})
        fake.add("tiny/gated", {"config.json": b"{}", "tokenizer.json": b"{}",
                                "model.safetensors": b""}, gated=True)  # fmt: skip
        hub = Hub(endpoint=fake.endpoint, cache=tmp_path)
        kind, _, words = refusal(hub, "tiny/modle")
        assert kind == "InputRefused" and "has no repository tiny/modle" in words
        kind, _, words = refusal(hub, "tiny/gated")
        assert kind == "InputRefused" and "gated: accept its terms" in words
        kind, _, words = refusal(hub, revision="v9")
        assert kind == "InputRefused" and "has no revision v9" in words
        fake.broken_with = 503
        assert refusal(hub)[:2] == ("ResolutionPending", "HubBusy")
        fake.broken_with = 403
        kind, _, words = refusal(hub)
        assert kind == "InputRefused" and "does not let this user read" in words
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        fake.broken_with = 401
        kind, _, words = refusal(hub)
        assert kind == "InputRefused" and "HF_TOKEN is not valid" in words
        assert "hf_secret" not in words
    kind, reason, words = refusal(Hub(endpoint=NOWHERE, cache=tmp_path))
    assert (kind, reason) == ("ResolutionPending", "HubUnreachable")
    assert "(it refused the connection)" in words


def test_an_unknown_host_says_so(tmp_path):
    hub = Hub(endpoint="http://no-such-host.invalid", cache=tmp_path)
    assert "(its host name is not known)" in refusal(hub)[2]
