"""The tutorial, followed to the letter: every block is pasted, every output shown is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

pytestmark = pytest.mark.acceptance

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
_BLOCK = re.compile(r"(?:<!-- exit (\d) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = "--- end of block"


@dataclass
class Block:
    """What a reader pastes, the exit status that the page announces, what it shows as output."""

    text: str
    status: int
    shown: str = ""
    output: str = ""
    found_status: int = -1


def blocks_of(page: str) -> list[Block]:
    blocks: list[Block] = []
    for status, language, text in _BLOCK.findall(page):
        if language == "sh":
            blocks.append(Block(text, int(status or 0)))
        elif language == "":
            blocks[-1].shown = text
    return blocks


def paste(blocks: list[Block], home: Path) -> None:
    """Run all blocks in one shell, from the checkout, with an empty home folder."""
    ends = f'echo "{_MARK} $failed"; failed=0'
    script = "".join(f"{block.text}\n{ends}\n" for block in blocks)
    done = subprocess.run(
        ["bash", "-c", f"failed=0; trap 'failed=$?' ERR\n{script}"],
        cwd=REPOSITORY,
        env={
            **{name: value for name, value in os.environ.items() if name != "LOOPSCOPE_STATE"},
            "HOME": str(home),
            "LOOPSCOPE_CACHE": os.environ.get("LOOPSCOPE_CACHE") or platformdirs.user_cache_dir(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    outputs = re.split(rf"^{_MARK} (\d+)\n", done.stdout, flags=re.MULTILINE)
    for block, output, status in zip(blocks, outputs[::2], outputs[1::2], strict=False):
        block.output, block.found_status = output, int(status)


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
    assert "capture" not in runs[1].output.replace("capture: Ready", ""), "only the mapping"
