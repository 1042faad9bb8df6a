"""The start of the program: until its command runs, Python looks for no garbage.

What is imported are a hundred thousand objects that stay; to look through them again and again is a
sixth of the time of a short command.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command; ``cli`` looks for garbage again before it does."""
    gc.disable()
    from loopscope.cli import main as run  # late: what it imports is most of a start

    run()
