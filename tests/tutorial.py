"""Pastes the blocks of the tutorial into a shell, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

REPOSITORY = Path(__file__).parents[1]
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
