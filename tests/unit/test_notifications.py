"""Conditions that changed are told to a webhook, signed; no step waits for it, whatever it does."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loopscope.controller.config import Config, load_config
from loopscope.controller.notifications import notifier as notifiers
from loopscope.controller.notifications.notices import Noticing
from loopscope.controller.notifications.notifier import Notifier
from loopscope.controller.notifications.webhook import Said, Webhook, secret_of
from loopscope.controller.runtime import running_controller
from loopscope.controller.settings import NotificationSettings, Settings
from loopscope.specs.errors import InvalidSpec
from loopscope.state.failures import TerminalFailure
from tests.simulated import Simulation, capture_spec, new_state

SECRET = b"a secret of the tests"
SECONDS_MAX = 60
WANTED = NotificationSettings("http://127.0.0.1:1/", "HOOK_SECRET")


class Receiver:
    """A server on loopback that keeps what it takes; tests say how it answers."""

    def __init__(self) -> None:
        self.status = 204
        self.taken: list[dict] = []
        self.asked = 0
        self.changed = threading.Condition()
        self.stalls = threading.Event()
        self.goes_on = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.stalls.is_set():
                    receiver.goes_on.wait(SECONDS_MAX)
                    return
                self.send_response(receiver.status)
                self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.end_headers()
                with receiver.changed:
                    receiver.asked += 1
                    if receiver.status < 300:
                        receiver.taken.append(
                            {"body": body, "headers": dict(self.headers), "path": self.path}
                        )
                    receiver.changed.notify_all()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def until(self, holds):
        """Wait for what a test needs to have happened."""
        with self.changed:
            assert self.changed.wait_for(holds, SECONDS_MAX), (self.asked, self.taken)

    def words(self):
        """Return kind, condition and status of what was taken, in its order."""
        told = [json.loads(one["body"]) for one in self.taken]
        return [
            (t["object"]["kind"], t["condition"]["type"], t["condition"]["status"]) for t in told
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.goes_on.set()
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(notifiers, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(notifiers, "PAUSE_SECONDS_MAX", 0.05)


def told(simulation, receiver, **changes):
    """Let a simulation's controller tell a receiver; returns its notifier."""
    hook = Webhook(f"http://127.0.0.1:{receiver.port}/hook?a=b", SECRET, 0.3, 1.0)
    notifier = Notifier(
        Noticing(NotificationSettings("unused", "HOOK_SECRET", **changes)),
        hook.send, simulation.state.database, simulation.clock,
    )  # fmt: skip
    simulation.controller.notifier = notifier
    return notifier


def test_an_experiment_that_becomes_ready_is_told_once_and_signed(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    notifier = told(simulation, receiver)
    with notifier.running():
        simulation.apply()
        simulation.settle()
        receiver.until(lambda: receiver.taken)
    assert receiver.words() == [("Experiment", "Ready", "True")]
    (one,) = receiver.taken
    sent, headers = json.loads(one["body"]), one["headers"]
    assert one["path"] == "/hook?a=b" and sent["id"] == headers["webhook-id"]
    assert sent["object"]["name"] == "france" and sent["type"] == "ConditionChanged"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + one["body"]
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_stall_is_told_with_its_reason_and_so_is_its_end(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    with told(simulation, receiver, conditions=("Stalled",), kinds=("Steering",)).running():
        simulation.workers.failures["steering"] = ("Odd", False)
        simulation.apply()
        simulation.settle()
        receiver.until(lambda: len(receiver.taken) == 1)
        simulation.workers.failures.clear()
        spec = {**simulation.get("france").spec}
        spec["steering"] = {**spec["steering"], "strengths": [0.25]}
        simulation.apply(spec)
        simulation.settle()
        receiver.until(lambda: len(receiver.taken) == 2)
    assert receiver.words() == [("Steering", "Stalled", "True"), ("Steering", "Stalled", "False")]
    assert json.loads(receiver.taken[0]["body"])["condition"]["reason"] == "Odd"
    assert json.loads(receiver.taken[1]["body"])["previousStatus"] == "True"


def test_while_it_fails_or_stalls_the_loop_goes_on_and_what_is_true_is_told_when_it_comes_back(
    tmp_path, receiver
):
    simulation = Simulation(tmp_path / "state")
    receiver.status = 503
    with told(simulation, receiver).running():
        simulation.apply()
        assert simulation.settle()[-1] == "steering"
        receiver.until(lambda: receiver.asked >= 2)
        receiver.stalls.set()
        simulation.apply(capture_spec(hook="blocks.1.hook_resid_post"), "cap", "Capture")
        assert simulation.settle() == ["capture"]
        receiver.status = 200
        receiver.stalls.clear()
        receiver.goes_on.set()
        receiver.until(lambda: len(receiver.taken) == 2)
    assert sorted(receiver.words()) == [
        ("Capture", "Ready", "True"),
        ("Experiment", "Ready", "True"),
    ]


def test_nobody_there_costs_the_loop_nothing_and_the_newest_state_waits(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        receiver.port, port = taken.getsockname()[1], receiver.port
        notifier = told(simulation, receiver)
        receiver.port = port
        simulation.apply()
        simulation.settle()
    assert notifier.waiting == 1, "not one for each step on the way"


def test_more_notices_than_fit_drop_the_oldest_and_say_so(tmp_path, receiver, monkeypatch):
    monkeypatch.setattr(notifiers, "WAITING_MAX", 2)
    simulation = Simulation(tmp_path / "state")
    notifier = told(simulation, receiver)
    for number in range(4):
        spec = capture_spec(hook=f"blocks.{number}.hook_resid_post")
        simulation.apply(spec, f"cap-{number}", "Capture")
        simulation.settle()
    assert notifier.waiting == 2 and notifier.counts["dropped"] == 2
    assert {n.object.name for n in notifier._waiting.values()} == {"cap-2", "cap-3"}


def test_what_is_refused_is_not_sent_again_and_a_redirect_is_not_followed(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    for status in (400, 302):
        receiver.status, receiver.asked = status, 0
        notifier = told(simulation, receiver)
        with notifier.running():
            simulation.apply(capture_spec(maxTokens=status), f"cap-{status}", "Capture")
            simulation.settle()
            receiver.until(lambda: receiver.asked)
            until(lambda n=notifier: n.counts["refused"])
        assert receiver.asked == 1


def until(holds):
    for _ in range(SECONDS_MAX * 100):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


def test_a_webhook_that_stays_away_is_given_up_after_a_stated_number_of_tries(tmp_path, receiver):
    simulation, tried = Simulation(tmp_path / "state"), []

    def away(notice, now):
        tried.append(notice.id)
        return Said("away", "no route")

    notifier = told(simulation, receiver)
    notifier.send = away
    with notifier.running():
        simulation.apply(capture_spec(), "cap", "Capture")
        simulation.settle()
        until(lambda: notifier.counts["away"])
    assert len(tried) == notifiers.TRIES_MAX and not notifier.waiting


def test_what_was_not_told_before_a_crash_is_told_by_the_next_process_and_nothing_twice(
    tmp_path, receiver
):
    simulation = Simulation(tmp_path / "state")
    with told(simulation, receiver).running():
        simulation.apply(capture_spec(), "first", "Capture")
        simulation.settle()
        receiver.until(lambda: len(receiver.taken) == 1)
        until(
            lambda: simulation.controller.notifier._told >= simulation.get("first").resource_version
        )
    told(simulation, receiver)  # its thread never runs: the process dies before it sends
    simulation.controller.notifier.noticing.prime(simulation.objects())
    simulation.apply(capture_spec(hook="blocks.1.hook_resid_post"), "second", "Capture")
    simulation.settle()
    simulation.restart()
    with told(simulation, receiver).running():
        simulation.step()
        receiver.until(lambda: len(receiver.taken) == 2)
    assert [json.loads(one["body"])["object"]["name"] for one in receiver.taken] == [
        "first",
        "second",
    ]


def test_turned_on_for_a_state_of_long_ago_it_tells_nothing_of_what_is_old(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.settle()
    simulation.restart()
    notifier = told(simulation, receiver)
    simulation.resync()
    assert notifier.waiting == 0


def test_a_converged_state_is_not_written_to(tmp_path, receiver):
    simulation = Simulation(tmp_path / "state")
    notifier = told(simulation, receiver)
    with notifier.running():
        simulation.apply()
        simulation.settle()
        receiver.until(lambda: receiver.taken)
        until(lambda: notifier._told >= simulation.get("france").resource_version)
        before = simulation.rows()
        simulation.resync()
        assert simulation.rows() == before


# -- settings ---------------------------------------------------------------------------


def test_it_is_off_by_default_and_a_file_turns_it_on(tmp_path):
    assert "notifications" not in Config().settings()
    path = tmp_path / "limits.conf"
    path.write_text(
        "notifications:\n  url: https://hooks.example/x\n  secretEnv: HOOK\n  kinds: [Mapping]\n"
    )
    settings = Settings(**load_config(path).settings())
    assert settings.notifications == NotificationSettings(
        "https://hooks.example/x", "HOOK", kinds=("Mapping",)
    )
    assert "notifications" not in settings.to_json(), "a URL may be a secret by itself"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{url: ftp://x/, secretEnv: A}", "expected https://host/path"),
        ("{url: 'https://user:word@x/', secretEnv: A}", "without a user in it"),
        ("{url: 'https://x/'}", "secretEnv: field required"),
        ("{url: 'https://x/', secretEnv: a b}", "secretEnv: string should match"),
        ("{url: 'https://x/', secretEnv: A, kinds: [Capturd]}", "unknown kind 'Capturd'"),
        ("{url: 'https://x/', secretEnv: A, conditions: [Reddy]}", "input should be 'Ready'"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, says):
    path = tmp_path / "limits.conf"
    path.write_text(f"notifications: {text}\n")
    with pytest.raises(InvalidSpec) as refused:
        load_config(path)
    (problem,) = refused.value.problems
    assert says in str(problem) and "notifications" in str(problem)


def test_without_its_secret_a_controller_does_not_start_and_never_says_the_url(tmp_path):
    state = new_state(tmp_path / "state")
    wanted = NotificationSettings("https://hooks.example/secret-path", "HOOK_SECRET_NOT_SET")
    with (
        pytest.raises(TerminalFailure, match="HOOK_SECRET_NOT_SET, which is not set") as refused,
        running_controller(state, Settings(notifications=wanted)),
    ):
        pass
    assert "secret-path" not in str(refused.value)


def test_a_secret_is_text_or_base64_as_other_programs_write_it():
    assert secret_of(WANTED, {"HOOK_SECRET": "plain"}) == b"plain"
    written = "whsec_" + base64.b64encode(SECRET).decode()
    assert secret_of(WANTED, {"HOOK_SECRET": written}) == SECRET
    with pytest.raises(TerminalFailure, match="no base64"):
        secret_of(WANTED, {"HOOK_SECRET": "whsec_!"})
