"""A process that has imported everything once and forks loopscope's processes on request.

Importing torch and its friends takes seconds, and a process that is killed while it imports
proves nothing. So the server imports once, stays single-threaded, and forks; the child then runs
the very module that ``python -m`` would run, under its own pid, with the asked environment and
files. In every child ``subprocess.Popen`` asks the same server for processes of ours, so the
controller's executor needs no seam: its workers are real processes whose pids it knows.

The journal (one JSON line per event) says which process was forked when, and how it ended.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

REPOSITORY = Path(__file__).parents[2]
SOCKET_VARIABLE = "CHAOS_FORK_SERVER"
REQUEST_BYTES_MAX = 1 << 16
LOOK_EVERY_SECONDS = 0.01
MODULES = ("loopscope", "loopscope.worker", "loopscope.worker.conversion")
"""What the server runs; every other command is started as ever."""
PRELOADED = (
    "alembic.command",
    "loopscope.cli",
    "loopscope.controller.runtime",
    "loopscope.controller.plan.applying",
    "loopscope.controller.sources.folder_source",
    "loopscope.reports.bundle",
    "loopscope.worker.dictionaries",
    "loopscope.worker.models",
    "loopscope.worker.runner",
    "loopscope.worker.saelens",
    "loopscope.worker.stages.capture.stage",
    "loopscope.worker.stages.decomposition.stage",
    "loopscope.worker.stages.mapping.stage",
    "loopscope.worker.stages.steering.stage",
    "sae_lens",
    "transformer_lens.model_bridge",
    "transformers.models.gemma2.modeling_gemma2",
)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Libraries that start threads when they are imported, told not to."""


@dataclass
class ForkedProcess:
    """What ``subprocess.Popen`` returns, for a process that the server forked."""

    pid: int
    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None
    _connection: socket.socket = field(repr=False)
    returncode: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal), None while the process runs."""
        with self._lock:
            if self.returncode is None:
                self._connection.setblocking(False)
                try:
                    message = self._connection.recv(REQUEST_BYTES_MAX)
                except BlockingIOError:
                    return None
                self.returncode = json.loads(message)["returncode"] if message else -255
                self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() >= until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(LOOK_EVERY_SECONDS)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def __enter__(self) -> ForkedProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def fork(
    socket_path: str,
    words: Sequence[str],
    *,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    text: bool = False,
    start_new_session: bool = False,
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
) -> ForkedProcess:
    """Run ``python -m <words>`` in a fork; the options are those of ``subprocess.Popen``."""
    ours: dict[str, IO[Any] | None] = dict.fromkeys(("stdin", "stdout", "stderr"))
    theirs: list[int] = []
    with contextlib.ExitStack() as opened:
        for number, (name, given) in enumerate(
            (("stdin", stdin), ("stdout", stdout), ("stderr", stderr))
        ):
            if given == subprocess.PIPE:
                reading, writing = os.pipe()
                mine, child = (writing, reading) if name == "stdin" else (reading, writing)
                opened.callback(os.close, child)
                ours[name] = os.fdopen(mine, ("w" if name == "stdin" else "r") + "b" * (not text))
            elif given == subprocess.STDOUT:
                child = theirs[1]
            elif given == subprocess.DEVNULL:
                child = opened.enter_context(Path(os.devnull).open("r+b")).fileno()
            elif given is None:
                child = number
            else:
                child = given if isinstance(given, int) else given.fileno()
            theirs.append(child)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(socket_path)
        request = {
            "words": list(words),
            "environment": dict(os.environ if env is None else env),
            "folder": str(cwd or Path.cwd()),
            "new_session": start_new_session,
        }
        socket.send_fds(connection, [json.dumps(request).encode()], theirs)
        pid = json.loads(connection.recv(REQUEST_BYTES_MAX))["pid"]
    return ForkedProcess(pid, *ours.values(), connection)


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """Stands for ``subprocess.Popen`` in some processes: our modules are forked by the server."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        command = arguments[0] if arguments and isinstance(arguments[0], list) else []
        is_python = command[:3] == [sys.executable, "-P", "-m"]
        if is_python and command[3] in MODULES:
            return fork(os.environ[SOCKET_VARIABLE], command[3:], **options)
        return super().__new__(cls)


@dataclass
class ForkServer:
    """The server as a context manager; ``spawn`` asks it for a process."""

    folder: Path

    @property
    def socket_path(self) -> str:
        return str(self.folder / "fork.socket")

    @property
    def journal(self) -> Path:
        return self.folder / "processes.jsonl"

    def __enter__(self) -> ForkServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.fork_server", self.socket_path, str(self.journal)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        assert self._process.stdout is not None  # opened as a pipe
        line = self._process.stdout.readline()
        assert line == "ready\n", f"the fork server did not start: {line!r}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None  # opened as a pipe
        self._process.stdin.close()
        self._process.wait()

    def spawn(self, *words: str, environment: dict[str, str], **options: Any) -> ForkedProcess:
        """Run ``python -m <words>`` from the repository's root."""
        env = {**environment, SOCKET_VARIABLE: self.socket_path}
        return fork(self.socket_path, words, env=env, cwd=REPOSITORY, **options)


@dataclass
class _Server:
    """The serving side: one thread, no state but its children."""

    listener: socket.socket
    journal: IO[str]
    children: dict[int, socket.socket] = field(default_factory=dict)

    def serve(self) -> dict[str, Any] | None:
        """Answer until standard input closes (None); in a child, return its request."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)
        selector = selectors.DefaultSelector()
        for source in (self.listener.fileno(), woken, 0):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if woken in ready:
                os.read(woken, 4096)
            self._reap()
            if 0 in ready:
                return None
            if self.listener.fileno() in ready and (request := self._fork()) is not None:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                os.close(woken)
                os.close(wake)
                return request

    def _fork(self) -> dict[str, Any] | None:
        connection, _ = self.listener.accept()
        message, files, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 3)
        if not message:  # who asked was killed before it had said what for
            connection.close()
            return None
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            self._enter(request, files, connection)
            return request  # type: ignore[no-any-return]
        for file in files:
            os.close(file)
        self.children[pid] = connection
        asked_by, _, _ = struct.unpack(
            "iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        failpoint = request["environment"].get("LOOPSCOPE_FAILPOINT")
        words = request["words"]
        self._note("forked", pid, words=words, asked_by=asked_by, failpoint=failpoint)
        with contextlib.suppress(OSError):  # who asked was killed meanwhile
            connection.send(json.dumps({"pid": pid}).encode())
        return None

    def _enter(self, request: dict[str, Any], files: list[int], connection: socket.socket) -> None:
        """Become the child: nothing of the server's stays open."""
        for opened in (self.journal, self.listener, connection, *self.children.values()):
            opened.close()
        if request["new_session"]:
            os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._note("ended", pid, returncode=code)
            with self.children.pop(pid) as connection, contextlib.suppress(OSError):
                connection.send(json.dumps({"returncode": code}).encode())

    def _note(self, event: str, pid: int, **more: Any) -> None:
        self.journal.write(json.dumps({"event": event, "pid": pid, "at": time.time(), **more}))
        self.journal.write("\n")
        self.journal.flush()


def _preload() -> None:
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that holds an object
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads run; a fork would copy one of them only"


def main() -> None:
    path, journal = sys.argv[1:]
    sys.path[0] = str(REPOSITORY)
    _preload()
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    with Path(journal).open("a") as journal_file:
        server = _Server(listener, journal_file)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        request = server.serve()
    if request is None:
        for pid in server.children:
            os.kill(pid, signal.SIGKILL)
        return
    subprocess.Popen = Popen  # type: ignore[misc]
    sys.argv = ["", *request["words"][1:]]
    os._exit(_run(request["words"][0]))


def _run(module: str) -> int:
    """Run a module as ``python -m`` does and return its exit status.

    The caller leaves with ``os._exit``: taking torch's modules down again would copy most of the
    server's memory, which takes longer than the command.
    """
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
