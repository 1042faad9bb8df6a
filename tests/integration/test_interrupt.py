"""A run that somebody ends says what is kept, and every view says the same."""

import json
import shlex
import signal

import pytest

from tests.integration.real import Place, eventually, workers_of

pytestmark = pytest.mark.integration


def begun(place, *more):
    """Start a run, read until its first job runs; return the process and what it printed."""
    run = place.start("run", str(place.specs), "--root", str(place.folder), *more)
    lines = []
    for line in run.stdout:
        lines.append(line)
        if "capture/tiny-capture: Running" in line:
            return run, lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_last_line_says_what_is_kept_and_how_to_go_on(tmp_path, sign, code):
    place = Place(tmp_path)
    place.write()
    run, _ = begun(place)
    run.send_signal(sign)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == code, output
    assert "stopping: workers finish what takes less than 10 s" in output
    last = output.splitlines()[-1]
    assert "kept: " in last and " of 5 stages" in last
    assert not workers_of(place)
    first = place.jobs()[0]
    assert first["attempts"] == 0 and first["state"] in ("pending", "succeeded")
    words = ["get", "cap", "tiny", "-o", "jsonpath={.status.conditions[0].reason}"]
    reason, table = place.call(*words)[1].strip(), place.call("get", "exp")[1]
    queue = json.loads(place.call("queue", "-o", "json")[1])
    assert "Running" not in table and reason != "JobRunning"
    assert not [job for job in queue["jobs"] if job["state"] == "running"]
    _, *again = shlex.split(last.partition("Go on with: ")[2])
    assert again[:2] == ["--state", str(place.state)]
    code, output = place.call(*again[2:])
    assert code == 0, output


def test_a_run_whose_reader_is_gone_ends_with_its_workers(tmp_path):
    place = Place(tmp_path)
    place.write()
    run, _ = begun(place, "--verbose")
    run.stdout.close()
    assert run.wait(timeout=60) == 141
    assert eventually(lambda: not workers_of(place))
    assert place.call("get", "exp")[1].splitlines()[1].split()[1] != "Running"
