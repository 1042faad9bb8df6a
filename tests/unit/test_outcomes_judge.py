"""A judge behind an endpoint: what is asked, what is kept, and what a bad endpoint can do."""

import json
import math

import numpy as np
import pytest

from loopscope.specs.ratings import Rated
from loopscope.specs.scoring import JUDGE_PROMPT
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import JobStopped, TerminalFailure, TransientFailure
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.scores.judge.asking import judge
from loopscope.worker.stages.scores.judge.endpoint import (
    ALLOWED_VARIABLE,
    TRIES_MAX,
    Clock,
    Endpoint,
    is_loopback,
)
from loopscope.worker.stages.scores.judge.questions import questions_of, said
from loopscope.worker.stages.scores.scored_texts import ScoredText
from tests.judge_endpoint import (
    completion,
    drips,
    hangs_up,
    judging,
    knows,
    never_ends,
    says,
    status,
    stops_in_the_middle,
)

ASKED = {"model": "judge-1", "question": "Is it about France?", "prompt": JUDGE_PROMPT,
         "maxAnswerTokens": 8}  # fmt: skip
TEXTS = ["wine in Paris", "beer in Rome", "wine in Paris", "", "{first} wine"]


class Time:
    """A clock that moves where somebody waits."""

    def __init__(self):
        self.now, self.starts = 0.0, []

    def clock(self):
        def wait(seconds):
            self.now += seconds

        return Clock(lambda: self.now, wait)


class Job:
    """A job of the stage with its shards; ``ask`` runs it."""

    def __init__(self, folder, **way):
        self.folder, self.time, self.reports, self.stop_at = folder, Time(), 0, None
        self.way = {"requestsPerMinute": 60_000, "maxRequests": 100, **way}

    def ask(self, server, texts=TEXTS, shards="a", asked=ASKED):
        context = StageContext(
            device="cpu", model=None, dictionary=None, artifact=None,
            shards=Shards(ShardFolder(self.folder / shards)), progress=self.progress,
        )  # fmt: skip
        payload = {"asked": asked, "beside": {**self.way, "endpoint": server.address}}
        scored = [ScoredText(Rated("o", "none", 0.0, n), "", t, ()) for n, t in enumerate(texts)]
        return judge(scored, payload, context, self.time.clock())

    def progress(self, *_):
        self.reports += 1
        if self.stop_at is not None and self.reports > self.stop_at:
            raise JobStopped("shutdown")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def allow(monkeypatch):
    return lambda server: monkeypatch.setenv(ALLOWED_VARIABLE, f"https://x.org {server.address}/")


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path / "shards")


def test_each_different_text_is_asked_about_once_in_either_order(job, allow):
    with judging(knows("wine")) as server:
        allow(server)
        found = job.ask(server)
    np.testing.assert_array_equal(found.columns["judge"], [1, 0, 1, math.nan, 1])
    assert len(server.asked) == 6
    assert {one.order for one in found.answers} == {"yes-no", "no-yes"}
    assert found.judge["orders_differ"] == 0
    assert found.judge["served"] == ["judge-2026-11"]
    assert (found.judge["input_tokens"], found.judge["output_tokens"]) == (240, 12)
    assert all(body["temperature"] == 0 for body in server.asked)


def test_what_stands_in_a_text_fills_no_place_of_the_prompt():
    (first, _) = questions_of(["{first} {question}"], ASKED)
    assert "{first} {question}" in first.words


def test_a_judge_that_always_says_a_is_seen_to_follow_the_order(job, allow):
    with judging(says("A")) as server:
        allow(server)
        found = job.ask(server, ["one", "two"])
    assert found.columns["judge"] == [0.5, 0.5]
    assert found.judge["both_orders"] == found.judge["orders_differ"] == 2
    assert found.judge["first_said"] == 4


@pytest.mark.parametrize(
    ("answer", "order", "word"),
    [
        ("A", "yes-no", "yes"), ("A", "no-yes", "no"), (" b. ", "yes-no", "no"),
        ("**A**", "yes-no", "yes"), ("Answer: B", "no-yes", "yes"), ("(A) yes", "yes-no", "yes"),
        ("A: no", "yes-no", ""), ("No.", "yes-no", "no"), ("yes", "no-yes", "yes"),
        ("A text about Paris", "yes-no", ""), ("A or B", "yes-no", ""), ("", "yes-no", ""),
        ("C", "yes-no", ""), ("I cannot tell", "yes-no", ""), ("AB", "yes-no", ""),
    ],
)  # fmt: skip
def test_an_answer_counts_where_it_plainly_says_one_of_the_two(answer, order, word):
    assert said(answer, order) == word


@pytest.mark.parametrize("content", ["maybe", "", None, 7, ["A"], {"A": 1}, "A\ud800"])
def test_an_answer_that_cannot_be_read_is_kept_and_counted(job, allow, content):
    with judging(says(content)) as server:
        allow(server)
        found = job.ask(server, ["one"])
    assert found.judge["unreadable"] == len(found.answers) == 2
    assert math.isnan(found.columns["judge"][0])


def test_an_answer_without_a_choice_or_a_count_is_an_answer(job, allow):
    with judging(
        says("A", choices=[]), says("B", usage=None), says("B", usage={"prompt_tokens": -3})
    ) as server:
        allow(server)
        found = job.ask(server, ["one", "two"])
    assert [one.said for one in found.answers] == ["", "yes", "no", "yes"]
    assert found.judge["input_tokens"] == 40


@pytest.mark.parametrize(
    "deed",
    [
        status(429, b"slow down", Retry_After="3"), status(500), status(503, b"<html>"), hangs_up,
        stops_in_the_middle, never_ends, status(200, b"no json"), status(200, b"[]"),
        status(200, b'"A"'), status(200, b'{"choices": "A"}'), status(200, b"[" * 100_000),
        status(200, b'{"error": "overloaded"}'), status(200, b""),
        status(429, b"", Retry_After="in a while"),
    ],
)  # fmt: skip
def test_an_endpoint_that_fails_for_a_while_is_asked_again(job, allow, deed):
    with judging(deed, says("A")) as server:
        allow(server)
        found = job.ask(server, ["one"])
    assert [one.said for one in found.answers] == ["yes", "no"]
    assert len(server.asked) == 3
    assert job.time.now >= 1.0


def test_one_that_fails_every_time_leaves_the_job_for_later_with_what_is_known(job, allow):
    with judging(says("A"), says("B"), status(503)) as server:
        allow(server)
        with pytest.raises(TransientFailure, match=f"{TRIES_MAX} tries: HTTP 503") as failure:
            job.ask(server, ["one", "two"])
        assert failure.value.reason == "JudgeUnavailable"
    with judging(says("B")) as server:
        allow(server)
        found = job.ask(server, ["one", "two"])
    assert len(server.asked) == 2
    assert found.columns["judge"] == [1.0, 0.5]


def test_a_slow_drip_ends_in_time(monkeypatch):
    with judging(drips) as server:
        endpoint = Endpoint(server.address, None, Time().clock(), timeout_seconds=0.2)
        with pytest.raises(TransientFailure, match=r"did not end in time|longer than"):
            endpoint.ask({"model": "m"})


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_a_refusal_is_for_a_human(job, allow, code):
    with judging(status(code, b"no such model: judge-1")) as server:
        allow(server)
        with pytest.raises(TerminalFailure, match=f"HTTP {code}: no such model") as failure:
            job.ask(server)
    assert failure.value.reason == "JudgeRefused"
    assert len(server.asked) == 1


def test_nothing_is_sent_where_an_endpoint_leads_elsewhere(job, allow, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "a-secret")
    job.way["apiKeyVariable"] = "JUDGE_KEY"
    with judging(says("A")) as other, judging(status(307, Location=other.address)) as server:
        allow(server)
        with pytest.raises(TerminalFailure, match="leads elsewhere"):
            job.ask(server)
    assert other.asked == []


def test_without_leave_of_the_machine_nothing_is_sent(job, monkeypatch):
    with judging(says("A")) as server:
        with pytest.raises(TerminalFailure, match=f"{ALLOWED_VARIABLE} does not allow") as failure:
            job.ask(server)
        monkeypatch.setenv(ALLOWED_VARIABLE, f"{server.address}x")
        with pytest.raises(TerminalFailure):
            job.ask(server)
    assert failure.value.reason == "JudgeNotAllowed"
    assert server.asked == []


def test_a_key_is_sent_and_stands_nowhere_else(job, allow, monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_KEY", "a-secret-key")
    job.way["apiKeyVariable"] = "JUDGE_KEY"
    with judging(says("your key is a-secret-key")) as server:
        allow(server)
        found = job.ask(server, ["one"])
        assert server.seen[0]["Authorization"] == "Bearer a-secret-key"
    assert "[key]" in found.answers[0].answer
    with judging(status(400, b"bad key a-secret-key")) as server:
        allow(server)
        with pytest.raises(TerminalFailure) as failure:
            job.ask(server, ["two"], shards="b")
    assert "a-secret-key" not in str(failure.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"a-secret-key" in path.read_bytes() for path in files)


def test_a_key_that_is_not_set_is_named(job, allow):
    job.way["apiKeyVariable"] = "NO_SUCH_KEY"
    with judging(says("A")) as server:
        allow(server)
        with pytest.raises(TerminalFailure, match="NO_SUCH_KEY, which is not set"):
            job.ask(server)


def test_answers_are_replayed_without_leave_or_network(job, allow, monkeypatch):
    with judging(knows("wine")) as server:
        allow(server)
        first = job.ask(server)
    monkeypatch.delenv(ALLOWED_VARIABLE)
    again = job.ask(server, shards="another job")  # nobody listens there any more
    assert again.answers == first.answers
    assert again.columns["judge"][0] == 1


def test_another_model_question_or_prompt_is_asked_anew(job, allow):
    with judging(says("A")) as server:
        allow(server)
        for number, change in enumerate(
            ({}, {"model": "judge-2"}, {"question": "Is it?"}, {"prompt": f"{JUDGE_PROMPT}!"})
        ):
            job.ask(server, ["one"], shards=str(number), asked={**ASKED, **change})
    assert len(server.asked) == 8


def test_a_stop_loses_no_answer(job, allow):
    with judging(knows("wine")) as server:
        allow(server)
        job.stop_at = 3
        with pytest.raises(JobStopped):
            job.ask(server)
        asked = len(server.asked)
        assert 0 < asked < 6
        job.stop_at = None
        job.ask(server)
        assert len(server.asked) == 6


def test_lines_of_the_cache_that_are_broken_are_asked_again(job, allow, cache):
    with judging(says("A")) as server:
        allow(server)
        job.ask(server, ["one"])
        (path,) = (cache / "loopscope" / "judged").glob("*.jsonl")
        lines = [line for line in path.read_text().split("\n") if line]
        broken = json.loads(lines[1]) | {"input_tokens": "many"}
        deep = "[" * 100_000
        path.write_text(f"{lines[0]}\n{json.dumps(broken)}\n{deep}\n\xff\n{lines[1][:20]}")
        job.ask(server, ["one"], shards="b")
    assert len(server.asked) == 3


def test_more_questions_than_allowed_are_not_begun(job, allow):
    job.way["maxRequests"] = 5
    with judging(says("A")) as server:
        allow(server)
        with pytest.raises(TerminalFailure, match="6 questions would be asked") as failure:
            job.ask(server)
    assert failure.value.reason == "JudgeTooDear"
    assert server.asked == []


def test_cost_stays_below_its_bound(job, allow):
    price = {"input": 1000.0, "output": 1000.0}
    job.way |= {"price": price, "maxCost": 0.5}
    with judging(says("A")) as server:
        allow(server)
        with pytest.raises(TerminalFailure, match="more than maxCost"):
            job.ask(server, [f"text {n}" for n in range(20)])
    spent = len(server.asked) * 42 * 1000 / 1e6
    assert 0.1 < spent <= 0.5


def test_requests_keep_their_pace(job, allow):
    job.way["requestsPerMinute"] = 30
    with judging(says("A")) as server:
        allow(server)
        job.ask(server, ["one", "two"])
    assert job.time.now == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("address", "own"),
    [("http://127.0.0.1:80/v1", True), ("http://localhost/v1", True), ("http://[::1]:8/v1", True),
     ("https://api.example.org/v1", False), ("http://127.0.0.1.example.org", False)],
)  # fmt: skip
def test_what_stays_on_the_machine_goes_through_no_proxy(address, own):
    assert is_loopback(address) is own


def test_the_fake_endpoint_answers_as_the_real_ones_do():
    assert set(json.loads(completion("A"))) == {"model", "choices", "usage"}
