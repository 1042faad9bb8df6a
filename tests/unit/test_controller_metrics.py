"""Metrics under controller-runtime's names, and the log line of each decision."""

import json
import logging
import subprocess
import sys
import urllib.request

import pytest
import structlog

from loopscope.controller.endpoint.answers import Endpoint, served
from loopscope.controller.endpoint.health import Health
from loopscope.controller.endpoint.standing import standing_of
from loopscope.controller.metrics import Metrics, Standing
from loopscope.controller.reconcile.work_queue import WorkQueue
from loopscope.logs import log_to_stderr
from loopscope.specs.keys import Key
from tests.simulated import Simulation, VirtualClock

NAMES = {
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds_bucket",
    "workqueue_work_duration_seconds_bucket",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
    "controller_runtime_reconcile_total",
    "controller_runtime_reconcile_time_seconds_bucket",
    "controller_runtime_reconcile_errors_total",
    "loopscope_jobs",
    "loopscope_objects",
    "loopscope_objects_stalled",
    "loopscope_oldest_pending_job_seconds",
    "loopscope_free_bytes",
    "loopscope_free_bytes_floor",
}


@pytest.fixture
def measured(tmp_path):
    simulation = Simulation(tmp_path / "state")

    metrics = Metrics(simulation.clock, lambda: standing_of(simulation.controller))
    simulation.controller.watch_with(metrics)
    return simulation, metrics.registry.get_sample_value


def test_every_name_is_there_after_a_run_with_a_failure(measured):
    simulation, _ = measured
    metrics = simulation.controller.observer
    simulation.workers.failures["steering"] = ("Odd", False)
    simulation.apply()
    simulation.settle()
    metrics.reconciled(Key("Capture", "default", "x"), "error", 0.1)
    names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert names >= NAMES


def test_reconciles_and_jobs_are_counted(measured):
    simulation, value = measured
    simulation.apply()
    simulation.settle()
    assert value("loopscope_jobs", {"state": "succeeded", "stage": "decomposition"}) == 2
    labels = {"controller": "capture", "result": "success"}
    reconciled = value("controller_runtime_reconcile_total", labels)
    assert reconciled >= 2  # it is queued, and its artifact is there
    everything = value("workqueue_queue_duration_seconds_count", {"name": "controller"})
    assert everything == value("workqueue_work_duration_seconds_count", {"name": "controller"})
    assert value("workqueue_depth", {"name": "controller"}) == 0


def test_the_queue_is_measured_on_the_clock():
    clock = VirtualClock()
    metrics = Metrics(clock, Standing)
    queue, value = WorkQueue(clock, metrics), metrics.registry.get_sample_value
    key, other = Key("Capture", "default", "a"), Key("Capture", "default", "b")
    own = {"name": "controller"}
    queue.add(key), queue.add(key), queue.add(other)
    assert value("workqueue_adds_total", own) == 2, "any number of adds collapse to one"
    clock.advance(3)
    assert queue.take() == key
    assert value("workqueue_depth", own) == 1
    assert value("workqueue_queue_duration_seconds_sum", own) == 3
    clock.advance(2)
    assert value("workqueue_unfinished_work_seconds", own) == 2
    assert value("workqueue_longest_running_processor_seconds", own) == 2
    queue.add_rate_limited(key)
    queue.done(key)
    assert value("workqueue_work_duration_seconds_sum", own) == 2
    assert value("workqueue_retries_total", own) == 1
    assert value("workqueue_unfinished_work_seconds", own) == 0


def test_they_are_served_on_this_machine_only(measured):
    simulation, _ = measured
    endpoint = Endpoint(Health(simulation.clock), simulation.controller.observer.registry)
    with served(endpoint, "127.0.0.1", 0) as port:
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        assert 'workqueue_depth{name="controller"} 0.0' in text
        listing = [c.laddr.ip for c in __import__("psutil").Process().net_connections("tcp")
                   if c.status == "LISTEN" and c.laddr.port == port]  # fmt: skip
        assert listing == ["127.0.0.1"]


def test_nobody_who_did_not_ask_imports_the_library():
    script = (
        "import sys, loopscope.cli, loopscope.controller.runtime, loopscope.controller.controller;"
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# -- the log ----------------------------------------------------------------------------


@pytest.fixture
def log_as():
    """Log as the commands do; afterwards as before."""
    yield log_to_stderr
    structlog.reset_defaults()


def test_each_decision_is_one_line_of_json(tmp_path, capsys, log_as):
    simulation = Simulation(tmp_path / "state")
    log_as(logging.INFO, "json")
    simulation.apply()
    simulation.settle()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    decisions = [line for line in lines if line["event"] == "reconciled"]
    assert len(decisions) > 10
    assert all({"object", "generation", "digest", "reason"} <= set(one) for one in decisions)
    started = [line for line in lines if line["event"] == "job started"]
    assert [one["stage"] for one in started][:1] == ["capture"]
    assert all({"object", "generation", "digest", "job", "worker"} <= set(one) for one in started)


def test_on_a_console_it_is_one_line_too(tmp_path, capsys, log_as):
    simulation = Simulation(tmp_path / "state")
    log_as(logging.INFO, "console")
    simulation.apply()
    simulation.step()
    lines = capsys.readouterr().err.splitlines()
    (first, *_) = [line for line in lines if "object=experiment/france" in line]
    assert "reconciled" in first and "generation=1" in first and "reason=" in first


def test_only_reconciles_that_end_in_an_error_count_as_errors():
    metrics = Metrics(VirtualClock(), Standing)
    key, value = Key("Capture", "default", "a"), metrics.registry.get_sample_value
    for result in ("success", "requeue", "error", "requeue_after", "error"):
        metrics.reconciled(key, result, 2.0)
    own = {"controller": "capture"}
    assert value("controller_runtime_reconcile_errors_total", own) == 2
    assert value("controller_runtime_reconcile_total", {**own, "result": "error"}) == 2
    assert value("controller_runtime_reconcile_time_seconds_sum", own) == 10.0
