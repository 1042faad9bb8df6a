"""What the live page asks of the server: who may, what it is told, and what it does."""

import json
import socket
from xml.etree import ElementTree

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import events, jobs, objects, pauses
from tests.simulated import Simulation, experiment_spec, settled_experiment, texts

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.served import TOKEN, served
from tests.unit.reports_case import build
from tests.unit.test_controller_study import settled_study, study_spec

OWN = {"X_Loopscope_Page": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return settled_experiment(tmp_path_factory.mktemp("state") / "state")


@pytest.fixture(scope="module")
def api(world, tmp_path_factory):
    with served(world.state, tmp_path_factory.mktemp("folder"), world.clock.now) as running:
        yield running


@pytest.fixture
def stalled(tmp_path):
    """An experiment whose steering failed for good, and a server that writes."""
    simulation = Simulation(tmp_path / "state")
    simulation.workers.failures["steering"] = ("BudgetNotMet", False)
    simulation.apply()
    simulation.settle()
    folder, now = tmp_path / "folder", simulation.clock.now
    with served(simulation.state, folder, now, writable=True, poll_seconds=0.02) as running:
        yield simulation, running


def act(api, verb, name="france", kind="Experiment", headers=OWN, **more):
    body = {"verb": verb, "kind": kind, "namespace": "default", "name": name, **more}
    return api("/page/actions", "POST", body, **headers)


# -- who may ask -----------------------------------------------------------------------------


def test_the_shell_is_open_and_holds_nothing_of_the_folder(api, world):
    answer = api("/", Authorization="")
    assert answer.code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    for text in (answer.body.decode(), api("/page/static/live.js", Authorization="").body.decode()):
        assert "france" not in text and TOKEN not in text


PATHS = (
    *("/page/about", "/page/now", "/page/tree", "/page/tree/nodes", "/page/queue"),
    *("/page/workers", "/page/events", "/page/stream", "/page/compare?a=x&b=y"),
    "/page/studies/default/s",
    *("/page/objects/Experiment/default/france", "/page/logs/Experiment/default/france"),
)


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_the_page_is_told_nothing(api, path):
    answer = api(path, Authorization="")
    assert (answer.code, answer.body["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    "path",
    [
        "/page/static/../site.py",
        "/page/static/%2e%2e/site.py",
        "/page/static/..%2f..%2fguard.py",
        "/page/static/",
        "/page/static/live.js%00",
        "/page/reports/../tree",
        "/page/reports/x/default/france",
        "/page/reports/x/../../tree",
        "/page/objects/Experiment/default/..%2f..%2fx",
        "/page/objects/Pod/default/france",
        "/page/objects/Experiment/default/nobody",
        "/page/logs/Experiment/default/%2e%2e",
        "/page/sweeps/default/france",
        "/page/studies/default/france",
    ],
)
def test_a_path_leads_to_what_the_page_has_or_nowhere(api, path):
    assert api(path).code == 404


def test_a_report_has_an_address_that_nobody_can_guess(api):
    report = api("/page/objects/Experiment/default/france").body["report"]
    capability = report["address"].split("/")[3]
    assert len(capability) == 32 and TOKEN not in report["address"]
    for other in ("oslo", "France"):
        path = report["address"].replace("france", other)
        assert api(path, Authorization="").code == 404


# -- what it shows ---------------------------------------------------------------------------


def test_the_tree_begins_with_what_no_other_owns(api):
    found = api("/page/tree").body
    (root,) = found["nodes"]
    assert (root["words"], root["word"], root["owner"]) == ("experiment/france", "Ready", None)
    assert ["VERDICT", "Supported"] in root["cells"]
    assert found["counted"]["Experiment"] == 1 and found["continue"] == ""
    owned = api(f"/page/tree/owned?uid={root['uid']}").body["nodes"]
    assert [one["name"].removeprefix("france-") for one in owned] == [
        *("capture", "coarse", "fine", "mapping", "steering"),
    ]
    assert {one["share"] for one in owned} == {1.0}


def test_the_tree_comes_in_pages_and_is_found_by_a_part_of_a_name(tmp_path):
    simulation = Simulation(tmp_path / "state")
    for number in range(5):
        simulation.apply(name=f"paris-{number}")
    simulation.apply(name="50%-off")
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        names, following = [], ""
        while True:
            found = api(f"/page/tree?limit=2&continue={following}").body
            names += [one["name"] for one in found["nodes"]]
            if not (following := found["continue"]):
                break
        assert names == ["50%-off", *(f"paris-{number}" for number in range(5))]
        assert [one["name"] for one in api("/page/tree?name=s-3").body["nodes"]] == ["paris-3"]
        assert [one["name"] for one in api("/page/tree?name=%25").body["nodes"]] == ["50%-off"]
        assert api("/page/tree?continue=x").code == 400


def test_what_needs_a_human_is_named_with_what_to_do(stalled):
    _, api = stalled
    found = api("/page/now").body
    (one,) = found["attention"]
    assert one["object"]["words"] == "steering/france-steering"
    assert one["reason"] == "BudgetNotMet" and one["message"] == "steering went wrong"
    assert "loopscope retry steering france-steering" in one["next"]
    assert found["experiments"] == {"Stalled": 1}
    assert "No controller runs" in found["lines"][-1]


def test_what_stands_behind_something_else_needs_nobody(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.workers.failures["capture"] = ("ModelNotFound", False)
    simulation.apply()
    simulation.settle()
    with served(simulation.state, tmp_path / "folder", simulation.clock.now) as api:
        found = api("/page/now").body
        assert [one["object"]["words"] for one in found["attention"]] == ["capture/france-capture"]
        assert found["stuck"] == 1 and simulation.get("france-mapping").stalled
        whole = api("/page/objects/Experiment/default/france").body["whole"]
        assert whole == "0 of 5 stages done, 0 %, 5 stages wait for a human"


def test_queue_workers_and_events_are_the_tables_of_the_commands(stalled):
    simulation, api = stalled
    with simulation.state.database.write() as connection:
        events.record(
            connection, Key("Experiment", "default", "france"), "Normal", "Noted", "x", now=1.0
        )
    assert api("/page/queue?all=1").body["columns"][:3] == ["ID", "STAGE", "STATE"]
    states = [row[2] for row in api("/page/queue?all=1").body["rows"]]
    assert states.count("failed") == 1 and api("/page/queue").body["rows"] == []
    assert [row[6] for row in api("/page/workers").body["rows"]] == ["idle"]
    assert api("/page/events").body["rows"][-1][2] == "Noted"


def test_one_object_says_why_and_shows_its_family(stalled):
    _, api = stalled
    found = api("/page/objects/Experiment/default/france").body
    assert found["whole"].startswith("4 of 5 stages done, 80 %")
    assert found["why"]["who"] == "you" and len(found["why"]["chain"]) == 2
    assert {one["kind"] for one in found["events"]["objects"]} >= {"Experiment", "Steering"}
    assert "failed" in [row[2] for row in found["jobs"]["rows"]]


def test_a_sweep_is_a_grid_with_its_axes_as_columns(tmp_path):
    simulation = Simulation(tmp_path / "state")
    matrix = {"cosine": {"low": {"mapping.minCosine": 0.3}, "high": {"mapping.minCosine": 0.5}}}
    simulation.apply(experiment_spec(matrix=matrix), name="sweep")
    simulation.settle(200)
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        found = api("/page/sweeps/default/sweep").body
        assert found["columns"][0] == "cosine" and found["axes"] == ["cosine"]
        assert [row[0] for row in found["rows"]] == ["high", "low"]
        assert [one["name"] for one in found["objects"]] == ["sweep-high", "sweep-low"]
        assert found["document"]["cells"][0]["verdict"] == "Supported"


def test_the_names_of_experiments_are_those_of_sweeps_and_studies_too_but_no_sweeps(tmp_path):
    simulation = settled_study(tmp_path / "state")
    matrix = {"cosine": {"low": {"mapping.minCosine": 0.3}, "high": {"mapping.minCosine": 0.5}}}
    simulation.apply(experiment_spec(matrix=matrix), name="matrix")
    simulation.settle(200)
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        cells = ["matrix-high", "matrix-low"]
        concepts = [f"s-{one}" for one in ("birds", "cats", "dogs", "rain", "snow")]
        assert api("/page/tree/names").body == {"names": [*cells, *concepts]}
        assert api("/page/tree/names?namespace=other").body == {"names": []}


def test_a_study_says_its_answer_and_names_each_concept(tmp_path):
    simulation = settled_study(tmp_path / "state")
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        found = api("/page/studies/default/s").body
        assert (found["ready"], found["testable"], found["answer"]) == (5, 5, "Supported")
        assert found["sentences"][0] == "Supported."
        names = ["birds", "cats", "dogs", "rain", "snow"]
        assert [row[0] for row in found["table"]["rows"]] == names
        assert [one["name"] for one in found["table"]["objects"]] == [f"s-{one}" for one in names]
        picture = ElementTree.fromstring(found["picture"])
        circles = picture.findall("{http://www.w3.org/2000/svg}circle")
        assert len(circles) == 5 and all(one.get("class") == "dot arm-multi" for one in circles)
        address = api("/page/objects/Study/default/s").body["report"]["address"]
        assert api(address, Authorization="").body.decode().count("<circle") == 5
        assert api("/page/studies/default/nobody").code == 404


def test_a_study_whose_concepts_are_not_there_yet_has_no_answer_and_no_links(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(study_spec(), "s", "Study")
    with served(simulation.state, tmp_path, simulation.clock.now) as api:
        found = api("/page/studies/default/s").body
        assert (found["ready"], found["answer"], found["picture"]) == (0, "", None)
        assert found["sentences"][0].startswith("No answer yet")
        assert found["table"]["objects"] == [None] * 5


def test_logs_are_those_of_the_jobs_of_the_object(stalled):
    simulation, api = stalled
    digest = simulation.get("france-capture").wanted_digest
    simulation.state.logs.mkdir(exist_ok=True)
    log = simulation.state.logs / "worker-0.log"
    log.write_text(f"job starts digest={digest[:12]}\none\njob starts digest={'0' * 12}\nother\n")
    path = "/page/logs/Capture/default/france-capture"
    assert api(path).body["lines"][-1] == "one"
    with log.open("a") as stream:
        stream.write(f"job starts digest={digest[:12]}\ntwo <b>\n")
    lines = api(path).body["lines"]
    assert lines[-1] == "two <b>" and "other" not in lines and len(lines) == 4


def test_report_and_comparison_are_what_the_commands_make(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.served.SECONDS_MAX", 300)  # for processes
    state, _ = build(tmp_path)
    with served(state, tmp_path, lambda: 2e9) as api:
        said = api("/page/objects/Experiment/default/france").body["report"]
        report = api(said["address"], Authorization="")
        assert report.code == 200 and b"<title>france: Loopscope report" in report.body
        policy = report.headers["content-security-policy"]
        assert policy.startswith("sandbox ") and "allow-same-origin" not in policy
        both = api("/page/compare?a=france&b=france").body
        assert both["spec"] == [] and both["latents"][0]["matchedBy"] == "number"
        refused = api("/page/compare?a=france&b=nobody")
        assert refused.code == 409 and "nobody" in refused.body["message"]
        assert api("/page/compare?a=france&b=--help").code == 404


# -- the stream ------------------------------------------------------------------------------


def lines_of(api, version):
    client = socket.create_connection(("127.0.0.1", api.port), timeout=60)
    client.sendall(
        f"GET /page/stream?since={version} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    with client, client.makefile("rb") as stream:
        for line in stream:
            if line.startswith(b"{"):
                yield json.loads(line)


def test_the_stream_names_what_changed_and_resumes_from_a_version(stalled):
    simulation, api = stalled
    version = api("/page/tree").body["version"]
    heard = lines_of(api, version)
    assert next(heard)["type"] == "begin"
    simulation.apply(experiment_spec(mapping={"minCosine": 0.5}))
    event = next(one for one in heard if one["type"] == "objects")
    (one,) = event["changed"]
    assert (one["words"], one["type"], one["owner"]) == ("experiment/france", "MODIFIED", None)
    heard.close()
    again = lines_of(api, version)
    assert next(again)["type"] == "begin"
    assert next(again) == event
    again.close()


def test_a_commit_without_a_new_version_is_heard_of(stalled):
    simulation, api = stalled
    heard = lines_of(api, api("/page/tree").body["version"])
    assert next(heard)["type"] == "begin"
    with simulation.state.database.write() as connection:
        pauses.pause(connection, pauses.EVERYTHING, now=1.0)
    assert any(one["type"] == "commit" for one in heard)
    heard.close()


def test_a_version_that_was_never_reached_is_gone(api):
    answer = api("/page/stream?since=10000")
    assert (answer.code, answer.body["reason"]) == (410, "Expired")


# -- what it does ----------------------------------------------------------------------------


def test_a_server_that_only_reads_does_nothing(api):
    answer = act(api, "retry")
    assert answer.code == 405 and "--write" in answer.body["message"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({**OWN, "Authorization": ""}, 401),
        ({**OWN, "Authorization": "Bearer wrong"}, 401),
        ({}, 403),
        ({"X_Loopscope_Page": "0"}, 403),
        ({**OWN, "Origin": "https://evil.example"}, 403),
        ({**OWN, "Origin": "null"}, 403),
        ({**OWN, "Sec_Fetch_Site": "cross-site"}, 403),
        ({**OWN, "Host": "evil.example"}, 403),
    ],
)
def test_who_is_not_our_own_page_changes_nothing(stalled, given, code):
    simulation, api = stalled
    before = simulation.rows()
    assert act(api, "retry", headers=given).code == code
    assert act(api, "pause", headers=given).code == code
    assert simulation.rows() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_form_changes_nothing(stalled, kind):
    simulation, api = stalled
    before = simulation.rows()
    assert api("/page/actions", "POST", {"verb": "retry"}, kind=kind, **OWN).code == 415
    assert simulation.rows() == before


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"nonsense", b'{"verb": "format"}', b'{"verb": "retry"}'),
        b'{"verb": ["pause"]}',
        b'{"verb": "rerun", "kind": "Steering", "namespace": "default", "name": "france-steering"}',
        b'{"verb": "cancel", "kind": "Experiment", "namespace": "default", "name": "nobody"}',
    ],
)
def test_what_is_not_understood_changes_nothing(stalled, body):
    simulation, api = stalled
    before = simulation.rows()
    assert api("/page/actions", "POST", body, **OWN).code in (400, 404)
    assert simulation.rows() == before


def test_retry_says_what_the_command_says_and_the_work_goes_on(stalled):
    simulation, api = stalled
    simulation.workers.failures.clear()
    lines = act(api, "retry").body["lines"]
    assert "steering/france-steering: job 6 is retried as job 7" in lines
    assert "capture/france-capture: no failed job" in lines
    assert simulation.settle() == ["steering"]


def test_pause_and_resume_hold_back_and_let_go(stalled):
    _, api = stalled
    assert act(api, "pause").body["lines"] == ["experiment/france paused"]
    assert act(api, "pause").body["lines"] == ["experiment/france was paused before"]
    (node,) = api("/page/tree").body["nodes"]
    assert node["paused"] and node["pausedBy"] == "experiment/france"
    assert act(api, "resume").body["lines"] == ["experiment/france resumed"]
    refused = act(api, "resume")
    assert refused.code == 409
    assert refused.body["message"] == "experiment/france is not paused; nothing is"
    assert act(api, "pause", kind=None, name=None).code in (200, 404)


def test_cancel_ends_what_waits_and_names_who_starts_it_again(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(experiment_spec(prompts={"target": texts("a b"), "neutral": texts("c d")}))
    simulation.step_until_running()
    with served(simulation.state, tmp_path, simulation.clock.now, writable=True) as api:
        lines = act(api, "cancel").body["lines"]
        assert lines[0] == "capture/france-capture: capture job 1 was cancelled by hand"
        with simulation.state.database.read() as connection:
            assert jobs.head(connection, 1).state == "cancelled"


def test_what_is_protected_is_not_made_again(stalled):
    simulation, api = stalled
    with simulation.state.database.write() as connection:
        record = objects.get(connection, Key("Experiment", "default", "france"))
        objects.annotate(connection, record, "loopscope.dev/protect", "true")
    before = simulation.rows()
    refused = act(api, "rerun", **{"from": "capture"})
    assert refused.code == 409 and "loopscope.dev/protect" in refused.body["message"]
    assert simulation.rows() == before
