"""The tutorial, followed to the letter: every block is pasted, every output shown is compared."""

from __future__ import annotations

import re

import pytest

from tests.tutorial import TUTORIAL, Block, blocks_of, paste

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[Block]:
    found = blocks_of(TUTORIAL.read_text(encoding="utf-8"))
    paste(found, tmp_path_factory.mktemp("home"))
    return found


def test_every_block_ends_as_the_page_says(blocks: list[Block]) -> None:
    assert len(blocks) > 10
    for block in blocks:
        assert block.found_status == block.status, f"{block.text}\n{block.output}"
        assert "Traceback" not in block.output


def test_what_the_page_shows_is_what_is_printed(blocks: list[Block]) -> None:
    shown = [block for block in blocks if block.shown]
    assert len(shown) >= 2
    for block in shown:
        assert block.shown in block.output


def test_the_first_run_answers_and_the_last_one_computes_nothing(blocks: list[Block]) -> None:
    runs = [block for block in blocks if "loopscope run" in block.text]
    assert all("experiment/japan is ready: gate" in run.output for run in runs)
    assert "Running" in runs[0].output and "Running" not in runs[-1].output
    assert not re.search("(capture|coarse|fine): (Queued|Running)", runs[1].output)
