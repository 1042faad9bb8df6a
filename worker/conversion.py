"""Conversion of a GGUF file into a plain model folder, in a process that can be stopped.

``python -m loopscope.worker.conversion GGUF FOLDER DTYPE`` dequantises the weights once. It ends
when its standard input closes, so it never outlives the worker that started it. How far it is it
writes beside the folder.
"""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from loopscope.state import failpoints
from loopscope.state.child_processes import child_environment
from loopscope.state.files import is_disk_full
from loopscope.state.source_code import CodeChanged, source_at_start

POLL_SECONDS = 0.5
MESSAGE_CHARACTERS_MAX = 2_000


LIBRARIES_LOADED, HEADER_READ, WEIGHTS_READ, WEIGHTS_WRITTEN, TOKENIZER_WRITTEN = 8, 45, 72, 78, 95
"""Percent of a conversion that lie behind each step, by the processor time of Gemma 3 270M; what is
left after the last is the worker's: it hashes what was written."""

EXIT_DISK_FULL = errno.ENOSPC
"""An exit status, because on a full disk a message in the log may be lost."""


class ConversionFailed(Exception):
    """The converter ended with an error; the text is the end of its output."""


def convert_in_process(
    gguf: Path, folder: Path, dtype: str, still_wanted: Callable[[int], None]
) -> None:
    """Convert in a child process; ``still_wanted`` is called twice a second and may raise.

    It is given the percent of the work that are done.
    """
    environment = child_environment(TQDM_DISABLE="1")  # the log is read by people, from its end
    command = [
        *(sys.executable, "-P", "-m", "loopscope.worker.conversion"),
        *(str(gguf), str(folder), dtype),
    ]
    log = folder.with_name(folder.name + ".log")
    failpoints.reach("conversion-spawn")
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
        ) as child,
    ):
        try:
            while True:
                still_wanted(_percent_of(folder))
                try:
                    code = child.wait(timeout=POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            child.kill()
            raise
    if code == EXIT_DISK_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if code != 0:
        text = log.read_text(errors="replace")
        raise ConversionFailed(text[-MESSAGE_CHARACTERS_MAX:].strip() or f"exit status {code}")
    if source_at_start().has_changed(__name__):  # the child ran what lies on the disk
        raise CodeChanged(f"{__name__} is not as it was when this worker started")


def _percent_file(folder: Path) -> Path:
    return folder.with_name(folder.name + ".percent")


def _percent_of(folder: Path) -> int:
    """Return how far the conversion into ``folder`` says it is; 0 before it says anything."""
    try:
        return int(_percent_file(folder).read_text())
    except (OSError, ValueError):  # nothing yet, or it is being written
        return 0


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Write config, safetensors weights and tokenizer of a GGUF file into ``folder``.

    Raises ``ValueError`` for a file that lacks tensors: transformers would draw them at random.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    reached = _percent_file(folder).write_text
    reached(str(LIBRARIES_LOADED))
    _read_headers_once()
    named = {"gguf_file": gguf.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(str(gguf.parent), trust_remote_code=False, **named)
    reached(str(HEADER_READ))
    model, report = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        config=config,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
        trust_remote_code=False,
        **named,
    )
    reached(str(WEIGHTS_READ))
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ValueError(
            f"{gguf.name} is incomplete: it lacks {len(lacking)} tensors ({lacking[0]})"
        )
    model.save_pretrained(folder)
    del model
    reached(str(WEIGHTS_WRITTEN))
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), trust_remote_code=False, **named)
    tokenizer.save_pretrained(folder)
    reached(str(TOKENIZER_WRITTEN))


def _read_headers_once() -> None:
    """Let transformers share one reading of a header, which it wants three times.

    It asks for config, weights and tokenizer one by one, and a vocabulary of 262,144 words takes
    the library's reader nine seconds each time.
    """
    import gguf

    gguf.GGUFReader = functools.cache(gguf.GGUFReader)


def _end_with_the_parent() -> None:
    while os.read(0, 1):  # not sys.stdin: its lock, held here, would abort a normal exit
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except Exception as error:
        if is_disk_full(error):
            sys.exit(EXIT_DISK_FULL)
        raise
