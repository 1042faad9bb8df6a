"""Real processes, killed at random: ``python -m tests.chaos.chaos --kills 1000``.

An endless story of episodes. In each, a user edits the spec (forth and back, or to something that
was never made), a controller and its worker start to act on it, and after a random while a burst
of SIGKILLs begins, 50 to 500 ms apart, each for a random process that has begun work: the
controller, the worker, a command. What died is started again. Now and then a process is told to
kill itself at a named failpoint instead, or a worker is stopped past its lease and continued. Most
episodes end calmly: nobody kills, and the seconds from the last restart until everything is
settled are taken down.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from loopscope.state import failpoints
from loopscope.state.processes import process_name
from tests.chaos.bench import FRESH, LEASE_SECONDS, VARIANTS, Bench, write
from tests.chaos.fork_server import ForkedProcess, ForkServer
from tests.chaos.processes import Process
from tests.chaos.verdict import Tally, Verdict, judge, reference_payloads

KILL_EVERY_SECONDS = (0.05, 0.5)
TICK_SECONDS = 0.01
SETTLE_PATIENCE_SECONDS = 600.0
WORK_PATIENCE_SECONDS = 20.0
GRACE_SECONDS = 10.0
FRESH_SHARE = 0.5
"""Of the edits, how many ask for something that was never made, so that workers have to work."""
FAILPOINT_SHARE = 0.4
"""Of the starts of a controller in a burst, how many carry a failpoint."""
STOP_SHARE = 0.1
"""Of the blows in a burst, how many are a SIGSTOP of the worker instead of a SIGKILL."""


@dataclass
class Chaos:
    """The driver: one thread, one clock, one generator."""

    bench: Bench
    random: Random
    tally: Tally = field(default_factory=Tally)
    variant: str = "as it was"
    fresh: list[str] = field(default_factory=list)
    """The variants that were made up on the way."""
    controller: ForkedProcess | None = None
    commands: list[ForkedProcess] = field(default_factory=list)
    armed: bool = False
    """Whether the controller carries a failpoint, which its workers inherit."""
    restarted_at: float = 0.0
    _stopped: list[tuple[float, Process]] = field(default_factory=list)

    def go_on_until(self, kills: int, deadline: float) -> None:
        """Live through episodes until so many kills counted, or the time is over."""
        while self.counted < kills and time.monotonic() < deadline:
            self._edit()
            self._let_work_begin()
            for _ in range(self.random.randint(1, 8)):
                self._strike()
                self._tick_for(self.random.uniform(*KILL_EVERY_SECONDS), killing=True)
                if self.random.random() < 0.2:
                    self._edit()
            if self.random.random() < 0.7:
                self.settle()
        self.settle()

    def _let_work_begin(self) -> None:
        """Mostly wait until a worker holds a job; then for a random moment of it."""
        patience = time.monotonic() + WORK_PATIENCE_SECONDS
        wait = self.random.random() < 0.8
        while wait and time.monotonic() < patience and not self.bench.holders():
            self._tick_for(0.02, killing=False)
        self._tick_for(self.random.uniform(0.0, 1.5), killing=self.random.random() < 0.3)

    @property
    def counted(self) -> int:
        """Return the kills that count so far, those at failpoints included."""
        by_themselves = sum(process.killed_itself for process in self.bench.processes.every)
        return sum(self.tally.kills.values()) + by_themselves

    def settle(self) -> None:
        """Let everything come to rest; note how long it took since the last restart."""
        deadline = time.monotonic() + SETTLE_PATIENCE_SECONDS
        if self.armed and self.controller is not None:
            self._kill(self.bench.processes.by_pid[self.controller.pid])
        write(self.bench.place, self.variant)  # the second spec, too, if it was taken away
        self._call(*self.bench.apply_words())
        while not self.bench.settled():
            if time.monotonic() > deadline:
                self.tally.violations.append(f"not settled within {SETTLE_PATIENCE_SECONDS:.0f} s")
                return
            self._tick_for(0.05, killing=False)
        self.tally.settle_seconds.append(time.time() - self.restarted_at)
        for record in self.bench.objects():
            if record.stalled and record.wanted_digest:
                self._retry(record.key.kind.lower(), record.key.name)
                self.settle()
                return

    def end(self) -> None:
        """Stop the controller in good order, as a user does."""
        for _, process in self._stopped:
            _send(process, signal.SIGCONT)
        if self.controller is not None:
            self.controller.terminate()
            self.controller.wait()
        for command in self.commands:
            command.wait()

    # -- what users do -----------------------------------------------------------

    def _edit(self) -> None:
        """Change the spec; perhaps apply it, and look at it, without waiting for either."""
        self.variant = self.random.choice([name for name in VARIANTS if name != self.variant])
        if self.random.random() < FRESH_SHARE:
            self.variant = f"{FRESH}{self.random.uniform(0.1, 2.0):.6f}"
            self.fresh.append(self.variant)
        write(self.bench.place, self.variant)
        if self.random.random() < 0.1:
            (self.bench.place.specs / "second.yaml").unlink()  # a watching controller prunes it
        failpoint = self._failpoint() if self.random.random() < 0.5 else None
        self._start_command(*self.bench.apply_words(), failpoint=failpoint)
        if self.random.random() < 0.5:
            self._start_command("get", "experiments", "-o", "json")

    def _start_command(self, *words: str, failpoint: str | None = None) -> None:
        with self._log("commands").open("a") as log:
            options = {"stdout": log, "stderr": log}
            self.commands.append(self.bench.start(*words, failpoint=failpoint, **options))

    def _call(self, *words: str) -> None:
        code, output = self.bench.call(*words)
        if code != 0:
            self.tally.violations.append(f"{' '.join(words)} ended with {code}: {output[-500:]}")

    def _retry(self, kind: str, name: str) -> None:
        """A job that lost its worker ten times is given up; a person tries it again."""
        self.tally.retried_by_hand += 1
        self._call("retry", kind, name)
        self._tick_for(1.0, killing=False)

    # -- what happens to them ----------------------------------------------------

    def _strike(self) -> None:
        """Hurt a random process that has begun work, if there is one."""
        self.bench.processes.look()
        holders = self.bench.holders()
        victims = [p for p in self.bench.processes.alive() if p.begun and not p.struck]
        victims = [p for p in victims if p.role != "worker" or process_name(p.pid) in holders]
        if not victims:
            return
        roles = sorted({p.role for p in victims})
        role = self.random.choice(roles)  # first the role, or commands would crowd out workers
        victim = self.random.choice([p for p in victims if p.role == role])
        if victim.role == "worker" and self.random.random() < STOP_SHARE:
            self.tally.stops += _send(victim, signal.SIGSTOP)
            until = time.monotonic() + self.random.uniform(0.1, 2.0 * LEASE_SECONDS)
            self._stopped.append((until, victim))
            return
        self._kill(victim)

    def _kill(self, victim: Process) -> None:
        self.bench.processes.look()
        if victim.alive and _send(victim, signal.SIGKILL):
            victim.struck = True
            self.tally.kills[victim.role] += victim.begun

    def _tick_for(self, seconds: float, *, killing: bool) -> None:
        """Let time pass; see to it that somebody controls."""
        until = time.monotonic() + seconds
        while True:
            self._continue_stopped()
            self._keep_a_controller(killing=killing)
            self.commands = [c for c in self.commands if c.poll() is None]
            self.bench.processes.look()
            if time.monotonic() >= until:
                return
            time.sleep(TICK_SECONDS)

    def _continue_stopped(self) -> None:
        now = time.monotonic()
        for until, process in list(self._stopped):
            if now >= until:
                self._stopped.remove((until, process))
                _send(process, signal.SIGCONT)

    def _keep_a_controller(self, *, killing: bool) -> None:
        if self.controller is not None and self.controller.poll() is None:
            return
        in_good_order = self.controller is not None and self.controller.returncode == 0
        mode = self.random.choice(["controller", "controller", "watch", "watch", "run"])
        if mode == "run":
            words = self.bench.run_words()
        else:
            words = self.bench.controller_words(watch=mode == "watch")
        self.armed = killing and self.random.random() < FAILPOINT_SHARE
        with self._log("controllers").open("a") as log:
            options = {"stdout": log, "stderr": log}
            self.controller = self.bench.start(
                *words, failpoint=self._failpoint() if self.armed else None, **options
            )
        if not in_good_order:
            self.restarted_at = time.time()

    def _failpoint(self) -> str:
        return f"{self.random.choice(failpoints.NAMES)}@{self.random.randint(1, 4)}"

    def _log(self, name: str) -> Path:
        return self.bench.state.with_name(f"{name}.log")


def _send(process: Process, number: int) -> bool:
    """Send a signal; return whether there was anybody to get it."""
    if not process.alive:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="loopscope-chaos-"))
    verdict = live_through(folder, arguments.seed, arguments.kills, arguments.seconds)
    verdict.write(arguments.report)
    sys.stdout.write(f"{verdict}\nreport: {arguments.report}\nkept: {folder}\n")
    return 1 if verdict.violations else 0


def live_through(folder: Path, seed: int, kills: int, seconds: float) -> Verdict:
    """Run the whole story in ``folder``; return what came of it."""
    sys.stdout.write(f"chaos with seed {seed} in {folder}\n")
    with ForkServer(folder / "server") as server:
        expected = reference_payloads(folder, server)
        bench = Bench.at(folder, server)
        chaos = Chaos(bench, Random(seed))
        started_at = time.monotonic()
        chaos.go_on_until(kills, started_at + seconds)
        chaos.end()
        time.sleep(GRACE_SECONDS if bench.processes.alive("worker") else 0.0)
        bench.processes.look()
        seconds = time.monotonic() - started_at
        expected |= reference_payloads(folder, server, chaos.fresh)
        return judge(bench, chaos.tally, expected, seed, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=4 * 3600.0)
    parser.add_argument("--report", type=Path, default=Path("build/chaos.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
