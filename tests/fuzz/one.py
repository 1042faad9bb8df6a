"""One target in one process: ``python -m tests.fuzz.one TARGET INPUTS SEED FOLDER CRASHES``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

PACKAGES = ["loopscope", "zipfile"]


def main() -> None:
    """Feed the target until its inputs are used up or one fails."""
    name, inputs, seed, folder, crashes = sys.argv[1:]
    guided = importlib.util.find_spec("atheris") is not None
    with _instrumented() if guided else contextlib.nullcontext():
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.watch import Watch, limit_address_space

    target = TARGETS[name]
    home = Path(folder) / "home"
    home.mkdir()
    run = target.make(home)
    watch = Watch()
    with contextlib.suppress(BaseException):
        run(target.seeds[0])  # late imports happen here, unwatched
    limit_address_space()

    def end(failure: str) -> NoReturn:
        result = {
            "target": name,
            "inputs": watch.inputs,
            "engine": "atheris" if guided else "random",
            "slowestSeconds": watch.slowest_seconds,
            "slowestInput": watch.slowest_input[:200].hex(),
            "memoryBytes": watch.memory_bytes_max,
            "failure": failure,
        }
        (Path(folder) / "result.json").write_text(json.dumps(result))
        os._exit(1 if failure else 0)

    def one_input(data: bytes) -> None:
        try:
            with watch.input(data):
                run(data)
        except BaseException:
            path = Path(crashes) / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
            path.write_bytes(data)
            end(f"{path}\n{traceback.format_exc()[-3000:]}")
        if watch.inputs >= int(inputs):
            end("")

    for data in target.seeds:
        one_input(data)
    (_guided if guided else _random)(one_input, target.seeds, int(seed), Path(folder))


def _instrumented() -> contextlib.AbstractContextManager[object]:
    import atheris

    return atheris.instrument_imports(include=PACKAGES)  # type: ignore[no-any-return]


def _guided(
    one_input: Callable[[bytes], None], seeds: tuple[bytes, ...], seed: int, folder: Path
) -> None:
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)
    # leaks and time are watched by us; the corpus grows with what it covers
    options = [f"-seed={seed}", "-max_len=4096", "-detect_leaks=0", "-rss_limit_mb=0", "-timeout=0"]
    atheris.Setup(["fuzz", *options, str(corpus)], one_input)
    atheris.Fuzz()


def _random(
    one_input: Callable[[bytes], None], seeds: tuple[bytes, ...], seed: int, _: Path
) -> None:
    from tests.fuzz.choices import mutated

    generator = random.Random(seed)
    while True:
        start = generator.choice([*seeds, generator.randbytes(generator.randint(0, 64))])
        one_input(mutated(start, generator))


if __name__ == "__main__":
    main()
