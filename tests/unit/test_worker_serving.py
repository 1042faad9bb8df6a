"""A worker's orders, one after the other, with a runner that computes nothing."""

import io
import json
import math
import os
import queue
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from loopscope.specs.actions import CODE_REVISIONS, Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.orders import EXIT_OUT_OF_TIME, Order
from loopscope.state.source_code import CodeChanged, source_at_start
from loopscope.worker import __main__ as program
from loopscope.worker import runner as runner_module
from loopscope.worker import serving, warm
from loopscope.worker.runner import Runner
from loopscope.worker.serving import Post, serve
from loopscope.worker.stop import StopRequest
from loopscope.worker.warm import DICTIONARIES_MAX, WarmInputs
from tests.simulated import new_state


class Idle:
    """Takes jobs and does nothing with them, or what it was given to do."""

    def __init__(self, then=lambda job: None):
        self.memory_ran_out = False
        self.ran, self.opened = [], []
        self.then = then

    def run(self, job, token, lease):
        self.ran.append((job, token, lease._lease_seconds, lease._progress_timeout_seconds))
        self.then(job)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Claimed jobs, and a function that serves them: returns the answers."""
    state = new_state(tmp_path / "state")
    orders = []
    for n in range(3):
        with state.database.write() as connection:
            key, action = Key("Capture", "default", f"c{n}"), Action("capture", {"n": n}, {})
            job_id, _ = jobs.enqueue(connection, action, key, 1, now=1.0)
            claimed = jobs.claim(connection, job_id, "w", 30.0, now=1.0)
        code = source_at_start().of_stage("capture")
        orders.append(Order(job_id, claimed.token, "capture", CODE_REVISIONS["capture"], code))
    stop = StopRequest(last_resort=lambda: None)

    def served(runner, given=orders):
        def opened(state, device):
            runner.opened.append((state.path, device))
            return runner

        monkeypatch.setattr(Runner, "open", staticmethod(opened))
        answers = []
        serve(
            Post(state.path, "cpu", 7.0, 99.0),
            given,
            lambda word, job: answers.append((word, job)),
            stop,
        )
        return answers

    served.state, served.orders, served.stop = state, orders, stop
    return served


def test_each_order_is_begun_run_and_ended_by_one_runner(shop):
    runner = Idle()
    ids = [order.job for order in shop.orders]
    assert shop(runner) == [(word, job) for job in ids for word in ("began", "ended")]
    assert runner.opened == [(shop.state.path, "cpu")]
    assert [job for job, _, _, _ in runner.ran] == ids
    assert [token for _, token, _, _ in runner.ran] == [order.token for order in shop.orders]
    assert {(lease, patience) for _, _, lease, patience in runner.ran} == {(7.0, 99.0)}


def test_after_a_stop_or_without_memory_no_other_job_is_asked_for(shop):
    def out_of_memory(job):
        runner.memory_ran_out = True

    runner = Idle(out_of_memory)
    first = shop.orders[0].job
    assert shop(runner) == [("began", first)]
    stopping = Idle(lambda job: shop.stop.begin())
    assert shop(stopping, shop.orders[1:]) == [("began", shop.orders[1].job)]


@pytest.mark.parametrize("at", ["order", "run"])
def test_a_job_of_other_code_is_given_back_and_the_worker_ends_without_a_word(shop, at):
    def refuse(job):
        raise CodeChanged("a file changed")

    first = shop.orders[0]
    given = [Order(first.job, first.token, "capture", 0), *shop.orders[1:]]
    runner = Idle(refuse)
    answers = shop(runner, given if at == "order" else shop.orders)
    assert answers == ([] if at == "order" else [("began", first.job)])
    with shop.state.database.read() as connection:
        job = jobs.get(connection, first.job)
    assert (job.state, job.reason, job.attempts) == ("pending", "CodeChanged", 0)


# -- the program ---------------------------------------------------------------------------


def test_orders_are_read_until_standard_input_closes_and_then_a_stop_begins(monkeypatch):
    orders, stops = queue.Queue(), []
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    program._read_orders(orders, lambda: stops.append(orders.qsize()))
    assert [orders.get(), orders.get()] == ["one\n", "two\n"]
    assert stops == [2], "after the last one"


def test_an_answer_is_a_line_and_a_controller_that_is_gone_is_no_trouble():
    answers = io.StringIO()
    program._answer(answers, "began", 5)
    assert answers.getvalue() == json.dumps({"began": 5}) + "\n"

    class Gone:
        def write(self, text):
            raise BrokenPipeError

    program._answer(Gone(), "ended", 5)


def test_the_program_serves_the_orders_of_its_pipe_at_its_post_until_there_are_no_more(
    monkeypatch,
):
    order = Order(5, 6, "capture", 1, "c")
    orders, answers, stop = queue.Queue(), io.StringIO(), StopRequest(lambda: None)
    orders.put(order.to_line().decode())
    orders.put(None)
    seen = []

    def served(post, given, answer, its_stop):
        seen.append((post, list(given), its_stop is stop))
        answer("began", 5)

    monkeypatch.setattr(serving, "serve", served)
    monkeypatch.setattr("structlog.configure", lambda **options: seen.append(list(options)))
    arguments = Namespace(
        state=Path("s"), device="d", lease_seconds=1.0, progress_timeout_seconds=2.0
    )
    program._work(arguments, orders, answers, stop)
    assert seen == [["logger_factory"], (Post(Path("s"), "d", 1.0, 2.0), [order], True)]
    assert answers.getvalue() == '{"began": 5}\n'


class Exit(Exception):
    """Stands in for the end of the process."""


@pytest.mark.parametrize(("trouble", "status"), [(None, 0), (ValueError("odd"), 1)])
def test_the_program_takes_its_options_and_exits_with_how_it_went(
    monkeypatch, capsys, trouble, status
):
    seen, begun = [], []

    def work(arguments, orders, answers, stop):
        seen.append((vars(arguments), answers))
        begun[0]()
        assert stop.asked and orders.get() is None
        if trouble:
            raise trouble

    def end(status):
        raise Exit(status)

    monkeypatch.setattr(sys, "argv", ["worker", "--state", "s"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(program, "ImportGuard", lambda source: Namespace(install=lambda: None))
    monkeypatch.setattr(program, "start_guardian", seen.append)
    monkeypatch.setattr(program, "_take_standard_output", lambda: "answers")
    monkeypatch.setattr(program, "StopRequest", lambda: StopRequest(lambda: None))
    monkeypatch.setattr(program, "on_terminate", begun.append)
    monkeypatch.setattr(program, "_work", work)
    monkeypatch.setattr(program.os, "_exit", end)
    with pytest.raises(Exit, match=str(status)):
        program.main()
    assert seen == [
        program.GUARDIAN_SECONDS,
        (
            {
                "state": Path("s"), "device": "cpu",
                "lease_seconds": 30.0, "progress_timeout_seconds": 1800.0,
                "seconds_left": math.inf,
            },
            "answers",
        ),
    ]  # fmt: skip
    assert ("ValueError: odd" in capsys.readouterr().err) is (trouble is not None)


def test_a_program_that_is_short_of_time_says_so_with_its_status(monkeypatch):
    def work(arguments, orders, answers, stop):
        left.append(stop.seconds_left)
        stop.begin_for_lack_of_time()

    def end(status):
        raise Exit(status)

    left = []
    monkeypatch.setattr(sys, "argv", ["worker", "--state", "s", "--seconds-left", "60"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(program, "ImportGuard", lambda source: Namespace(install=lambda: None))
    monkeypatch.setattr(program, "start_guardian", lambda seconds: None)
    monkeypatch.setattr(program, "_take_standard_output", lambda: "answers")
    monkeypatch.setattr(program, "StopRequest", lambda: StopRequest(lambda: None))
    monkeypatch.setattr(program, "on_terminate", lambda act: None)
    monkeypatch.setattr(program, "_work", work)
    monkeypatch.setattr(program.os, "_exit", end)
    with pytest.raises(Exit, match=str(EXIT_OUT_OF_TIME)):
        program.main()
    assert 0 < left[0] <= 60


# -- what is kept warm ---------------------------------------------------------------------


def test_a_model_is_loaded_once_and_gives_way_to_the_next(monkeypatch):
    loaded, told = [], []

    def load(ref, cache, device, progress):
        assert inputs._model is None, "the weights before are released first"
        loaded.append((ref["identity"], device))
        return f"model {ref['identity']}"

    monkeypatch.setattr("loopscope.worker.models.load_model", load)
    inputs = WarmInputs()
    for identity in ("a", "a", "b"):
        found = inputs.model({"identity": identity}, "cpu", lambda *seen: told.append(seen))
        assert found == f"model {identity}"
    assert loaded == [("a", "cpu"), ("b", "cpu")]
    assert told == [("LoadingModel", 0, 100, "percent")] * 2


def test_the_last_few_dictionaries_are_kept(monkeypatch):
    loaded, told = [], []

    def load(ref, progress):
        progress("ConvertingDictionary", 1, 1, "MiB")
        loaded.append(ref["identity"])
        return f"dictionary {ref['identity']}"

    monkeypatch.setattr("loopscope.worker.dictionaries.load_dictionary", load)
    inputs = warm.WarmInputs()
    for identity in (0, 1, 0, *range(2, DICTIONARIES_MAX), 1, DICTIONARIES_MAX, 1, 0):
        found = inputs.dictionary({"identity": identity}, lambda *seen: told.append(seen))
        assert found == f"dictionary {identity}"
    assert loaded == [*range(DICTIONARIES_MAX), DICTIONARIES_MAX, 0]
    assert len(told) == len(loaded)


def test_answers_go_to_the_controller_and_whatever_else_is_printed_into_the_log(
    tmp_path, monkeypatch
):
    """With the real numbers of standard output and standard error, put back afterwards."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    kept = {number: os.dup(number) for number in (1, 2)}
    places = {1: tmp_path / "answers", 2: tmp_path / "log"}
    try:
        for number, place in places.items():
            with place.open("wb") as file:
                os.dup2(file.fileno(), number)
        answers = program._take_standard_output()
        print("a library prints")  # noqa: T201 - what a library does
        os.write(1, b"a C library prints\n")
        sys.stderr.write("odd \udc80\n")
        answers.write("an answer\n")
        answers.close()
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
    assert places[1].read_text() == "an answer\n"
    assert places[2].read_text() == "a library prints\na C library prints\nodd ?\n"


def test_a_runner_sets_its_threads_on_purpose_and_takes_no_gradients(shop, monkeypatch):
    seen = []
    monkeypatch.setattr(runner_module.torch, "set_num_threads", seen.append)
    monkeypatch.setattr(runner_module.torch, "set_grad_enabled", seen.append)
    runner = Runner.open(shop.state, "cpu")
    assert seen == [runner_module.torch_threads(), False]
    assert (runner.state, runner.device) == (shop.state, "cpu")
