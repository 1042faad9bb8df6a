"""What a controller and a server say of themselves to who restarts processes and who is woken."""

import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from loopscope.controller.endpoint.answers import Endpoint, served
from loopscope.controller.endpoint.health import ALIVE_SECONDS_MAX, Health
from loopscope.controller.endpoint.standing import standing_of
from loopscope.controller.jobs.queue_view import read_view
from loopscope.controller.leader_election import leading
from loopscope.controller.metrics import Metrics
from loopscope.controller.runtime import leadership
from loopscope.controller.settings import Settings
from loopscope.state.failures import TerminalFailure, TransientFailure
from tests.s3_servers import free_port
from tests.served import SECONDS_MAX
from tests.served import served as http_served
from tests.simulated import Simulation, capture_spec, new_state

RULES = Path(__file__).parents[2] / "examples/alerts/loopscope.rules.yaml"
FLOOR_BYTES = 1000
WORDS_OF_PROMQL = {"absent", "and", "on", "or", "predict_linear", "rate", "sum", "by", "vector"}


@pytest.fixture
def asked(tmp_path):
    """A controller that leads, and a function that asks for a path of its endpoint."""
    simulation = Simulation(tmp_path / "state", free_space_floor_bytes=FLOOR_BYTES)
    health = Health(simulation.clock)
    health.leads(simulation.controller)
    metrics = Metrics(simulation.clock, lambda: standing_of(simulation.controller))
    simulation.controller.watch_with(metrics)
    with served(Endpoint(health, metrics.registry), "127.0.0.1", 0) as port:
        yield simulation, health, lambda path: get(f"http://127.0.0.1:{port}{path}")


def get(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_a_controller_that_steps_is_alive_and_ready(asked):
    simulation, health, ask = asked
    simulation.step()
    health.stepped()
    assert ask("/healthz") == ask("/livez") == (200, "[+]loop ok\nleading\n")
    code, said = ask("/readyz")
    assert code == 200 and "[+]database ok" in said and "[+]disk ok" in said
    assert ask("/")[0] == 404


def test_a_loop_that_does_not_come_round_is_not_alive_and_one_that_waits_is(asked):
    simulation, health, ask = asked
    health.stepped()
    simulation.clock.advance(ALIVE_SECONDS_MAX)
    assert ask("/healthz")[0] == 200
    simulation.clock.advance(1)
    code, said = ask("/healthz")
    assert code == 503 and "no step for 301 seconds" in said
    health.stepped()
    assert ask("/healthz")[0] == 200


def test_a_disk_below_the_floor_is_not_ready_and_nothing_that_a_restart_would_mend(asked):
    simulation, _, ask = asked
    simulation.controller.free_bytes = lambda: FLOOR_BYTES - 1
    code, said = ask("/readyz")
    assert code == 503 and "[-]disk failed" in said and "999 bytes are free" in said
    assert ask("/healthz")[0] == 200
    simulation.controller.free_bytes = lambda: FLOOR_BYTES
    assert ask("/readyz")[0] == 200


def test_a_database_that_does_not_answer_is_not_ready(asked, monkeypatch):
    simulation, _, ask = asked

    def away(*_):
        raise TransientFailure("DatabaseUnreachable", "the server is away")

    monkeypatch.setattr(type(simulation.state.database.dialect), "begin_read", away)
    code, said = ask("/readyz")
    assert code == 503 and "the server is away" in said
    assert ask("/healthz")[0] == 200, "a new process would not bring it back"
    assert "loopscope_free_bytes" in ask("/metrics")[1]


def test_who_stands_by_answers_and_takes_over_behind_the_same_port(tmp_path):
    state, stop, wake = new_state(tmp_path / "state"), threading.Event(), threading.Event()
    port = free_port()

    def stand_by():
        for runtime in leading(state, Settings(metrics_port=port), stop, wake):
            runtime.run_until(stop.is_set)

    process = threading.Thread(target=stand_by, daemon=True)
    with leadership(state):
        process.start()
        assert "standing by" in until(lambda: said_by(port))
        assert get(f"http://127.0.0.1:{port}/metrics")[0] == 200
    assert until(lambda: "[+]database ok" in said_by(port))
    assert "workqueue_depth" in get(f"http://127.0.0.1:{port}/metrics")[1]
    stop.set()
    wake.set()
    process.join(SECONDS_MAX)
    assert not process.is_alive()


def said_by(port):
    """Return what is said about readiness, nothing while nobody listens."""
    try:
        return get(f"http://127.0.0.1:{port}/readyz")[1]
    except urllib.error.URLError:
        return ""


def until(look):
    """Return what a look finds, once it finds something."""
    for _ in range(SECONDS_MAX * 20):
        if found := look():
            return found
        threading.Event().wait(0.05)
    raise AssertionError("nothing came")


def test_a_port_that_is_taken_is_told_in_one_line(asked, tmp_path):
    _, health, ask = asked
    with served(Endpoint(health), "127.0.0.1", 0) as port:
        refused = pytest.raises(TerminalFailure, match=f"port {port} of 127.0.0.1 cannot be used")
        with refused, served(Endpoint(health), "127.0.0.1", port):
            pass
    assert ask("/healthz")[0] == 200


def test_a_server_is_ready_while_its_database_answers(tmp_path):
    simulation = Simulation(tmp_path / "state")
    with http_served(simulation.state, tmp_path, simulation.clock.now) as api:
        assert api("/readyz").body == b"ok"
        shutil.move(simulation.state.path / "state.db", tmp_path / "gone.db")
        answer = api("/readyz")
        assert answer.code == 503 and b"database failed" in answer.body
        assert api("/healthz").body == b"ok"


# -- the disk ---------------------------------------------------------------------------


def test_queue_says_what_a_controller_says_when_the_disk_of_the_artifacts_is_the_full_one(
    tmp_path, monkeypatch
):
    simulation = Simulation(tmp_path / "state", free_space_floor_bytes=FLOOR_BYTES)
    simulation.controller.starter.free_bytes = lambda: 0
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step()
    artifacts = simulation.state.path / "artifacts"
    artifacts.mkdir(exist_ok=True)
    free = {artifacts: FLOOR_BYTES - 1}
    monkeypatch.setattr("loopscope.state.folder.free_bytes", lambda path: free.get(path, 10**9))
    with simulation.state.database.read() as connection:
        view = read_view(
            connection, simulation.state.path, simulation.settings, simulation.clock.now()
        )
    (job,) = view.jobs
    assert job.waiting is not None and job.waiting.reason == "FreeSpace"
    assert "999 bytes are free" in job.waiting.message


# -- alerts -----------------------------------------------------------------------------


def test_every_metric_that_an_alert_asks_for_exists(asked):
    simulation, _, ask = asked
    simulation.workers.failures["steering"] = ("Odd", False)
    simulation.apply()
    simulation.settle()
    observer = simulation.controller.observer
    observer.reconciled(simulation.get("france").key, "error", 0.1)
    names = {line.split("{")[0].split(" ")[0] for line in ask("/metrics")[1].splitlines()}
    rules = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    assert len(rules) >= 6
    for rule in rules:
        bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", rule["expr"])
        words = set(re.findall(r"[a-z_]{2,}", bare)) - WORDS_OF_PROMQL
        assert words and words <= names | {"up"}, rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"])


def test_labels_that_an_alert_asks_for_are_those_of_the_metric(asked):
    simulation, _, ask = asked
    simulation.workers.failures["steering"] = ("Odd", False)
    simulation.apply()
    simulation.settle()
    said = ask("/metrics")[1]
    assert 'loopscope_objects_stalled{kind="Steering"} 1.0' in said
    assert 'loopscope_objects{kind="Experiment",ready="False"} 1.0' in said
    assert 'loopscope_objects{kind="Capture",ready="True"} 1.0' in said
    assert 'loopscope_jobs{stage="capture",state="succeeded"} 1.0' in said


def test_the_age_of_the_oldest_job_that_waits_grows_with_the_clock(asked):
    simulation, _, ask = asked
    assert "loopscope_oldest_pending_job_seconds 0.0" in ask("/metrics")[1]
    simulation.controller.starter.free_bytes = lambda: 0
    simulation.apply(capture_spec(), "cap", "Capture")
    simulation.step()
    simulation.clock.advance(7)
    assert "loopscope_oldest_pending_job_seconds 7.0" in ask("/metrics")[1]


# -- users ------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@needs_root
def test_the_state_of_another_user_is_refused_in_words_and_left_alone(tmp_path, loopscope):
    Simulation(tmp_path / "state").state.database.close()
    before = sorted(path.name for path in (tmp_path / "state").iterdir())
    os.chown(tmp_path / "state/state.db", 65534, 65534)
    code, _, said = loopscope("gc", "--yes")
    assert code == 1 and "is the state of nobody" in said and "--user 65534" in said
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == before
    assert loopscope("get", "experiments")[0] == 0, "root may look"


@needs_root
def test_a_private_folder_of_another_user_is_no_lost_state(tmp_path):
    Simulation(tmp_path / "state").state.database.close()
    tmp_path.chmod(0o755)
    (tmp_path / "state").chmod(0o700)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from loopscope.state.failures import TerminalFailure\n"
        "from loopscope.state.folder import refuse_other_user\n"
        "os.setuid(65534)\n"
        "try: refuse_other_user(Path(sys.argv[1]))\n"
        "except TerminalFailure as told: print(told)\n"
    )
    words = [sys.executable, "-c", program, "state"]  # relative: what is above may be private too
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "is private to root" in told
