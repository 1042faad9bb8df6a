"""One seed from its first action to the end, where everything must have come right."""

from __future__ import annotations

import atexit
import functools
import logging
import random
import shutil
import tempfile
import traceback
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import structlog

from loopscope.controller.jobs import sharing
from loopscope.controller.settings import Settings
from loopscope.state.invariants import Seen
from tests import promises
from tests.simulation import actions, moves, preempting, topologies
from tests.simulation.oracle import Broken, Oracle
from tests.simulation.preempting import Rights
from tests.simulation.world import Life, World

ACTIONS_MIN, ACTIONS_MAX = 15, 45
SETTLING_STEPS_MAX = 250
SETTLED_SHARE = 0.5
"""So many seeds begin with everything applied and settled: there is more to break."""
MEMORY = Path("/dev/shm")
"""Nothing here is meant to survive this machine, so nobody waits for its disk."""

_WEIGHTED: list[tuple[actions.Action, int]] = [
    (actions.apply, 9),
    (actions.edit_back_and_forth, 2),
    (actions.relabel, 1),
    (actions.delete, 2),
    (actions.delete_a_child, 1),
    (actions.prune, 1),
    (actions.retry, 1),
    (actions.replace_the_model, 1),
    (actions.harm_an_artifact, 4),
    (actions.pass_time, 8),
    (actions.set_the_clock, 1),
    (actions.drop_wake_ups, 1),
    (actions.repeat_wake_ups, 1),
    (actions.shorten_the_log, 1),
    (actions.work, 24),
    (actions.pause, 2),
    (actions.come_back, 3),
    (actions.sleep_too_long, 3),
    (actions.kill_a_worker, 2),
    (actions.die_while_publishing, 2),
    (actions.fail_the_next_job, 1),
    (actions.second_controller, 1),
    (actions.restart, 1),
]
CLOCK_TROUBLE_SHARE = 0.15
"""In so many actions the date is set, or everything is stopped for a while, at any statement."""
RESYNC_TROUBLE_SHARE = 0.3
"""In so many of the other actions it happens in the middle of a resync, if there is one."""
COLLECT_WEIGHT = 6
COLLECTING_SHARE = 0.25
"""In so many seeds somebody also collects what nothing needs."""
_MOVING: list[tuple[actions.Action, int]] = [
    (moves.move_an_input, 12),
    (moves.change_the_code, 12),
    (moves.confirm, 6),
    (actions.restart, 3),
]
MOVING_SHARE = 0.3
"""In so many seeds inputs and code move as well."""
STEP_WEIGHT = 30
ASKING_WEIGHT = 40
"""Only of the seeds in which jobs make room for others."""
POWER_CUT_WEIGHT = 3
_MEANWHILE: list[actions.Action] = [
    actions.apply,
    actions.delete,
    actions.harm_an_artifact,
    actions.work,
    actions.come_back,
    actions.kill_a_worker,
]


@dataclass
class Played:
    """What came of a seed."""

    seed: int
    broken: str | None = None
    trace: list[str] = field(default_factory=list)
    trace_digest: str = ""
    steps: int = 0
    checks: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def totals(self) -> Counter[str]:
        """Return its numbers, to be summed over seeds."""
        return self.counts + Counter(seeds=1, steps=self.steps, checks=self.checks)

    @property
    def replay(self) -> str:
        return f"python -m tests.simulation --seed {self.seed} --trace"


def play(seed: int) -> Played:
    """Play a seed in a folder of its own; a broken invariant is told in the answer."""
    folder = new_folder()
    try:
        return Game.of_seed(seed, folder / "state").play()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_shared(seed: int) -> bool:
    """Whether three workers share a capture; the stories of the other seeds stay as they are."""
    return seed % 20 == 13


def _looked_at_once() -> AbstractContextManager[object]:
    """Let shares be queued in the step that finds them missing: hours pass between few steps."""
    return mock.patch.object(sharing, "LOOK_SECONDS", 0.0)


class Game:
    """A seed, its world and its oracle."""

    collects = False
    """Whether somebody collects what nothing needs."""
    moves = False
    """Whether models, dictionaries and the code itself move under whoever runs."""

    def __init__(self, seed: int, path: Path, topology: int, settings: Settings) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.seed = seed
        self.rng = random.Random(seed)
        choices = topologies.TOPOLOGIES[topology]()
        self.world = World(path, self.rng, settings, choices)
        self.world.clock_rng.seed(f"{seed} clock")
        self.oracle = Oracle(self.world)
        self.steps = 0
        self.rights = Rights(self.world) if preempting.is_played_by(seed) else None

    @staticmethod
    def of_seed(seed: int, path: Path) -> Game:
        """Let the seed choose what there is and how it is set."""
        rng = random.Random(f"{seed} world")
        topology = topologies.chosen(rng)
        settings = Settings(
            job_starts_per_minute=rng.choice([4, 10, 60]),
            slots=rng.choice([1, 2]),
            verify_bytes_per_resync=rng.choice([0, 2**28, 2**28, 2**28]),
        )
        settled = rng.random() < SETTLED_SHARE
        if preempting.is_played_by(seed):  # two captures of different work, on one slot
            topology, settled = 0, False
            settings = replace(settings, **preempting.SETTINGS)
        if is_shared(seed):
            topology, settled = 0, False
            settings = replace(settings, slots=3, stage_parallelism={"capture": 3})
        if settled:
            shutil.copytree(_settled(topology), path)
        game = Game(seed, path, topology, settings)
        game.world.clock.advance(1000.0 if settled else 0.0)
        game.collects = rng.random() < COLLECTING_SHARE
        game.moves = rng.random() < MOVING_SHARE
        return game

    def play(self) -> Played:
        broken = None
        with (
            self.world.lasting(),
            self.rights.watched() if self.rights else nullcontext(),
            _looked_at_once() if is_shared(self.seed) else nullcontext(),
        ):
            try:
                self._actions()
                self._end()
            except Broken as what:
                broken = str(what)
            except Exception as error:  # the product broke where no trouble was made
                broken = f"unexpected {type(error).__name__}: {error}\n{traceback.format_exc()}"
                self.world.say(broken)
        world = self.world
        world.counts += world.trouble.counts
        return Played(
            self.seed, broken, world.trace, world.trace_digest(), self.steps,
            self.oracle.checked, world.counts,
        )  # fmt: skip

    # -- with trouble --------------------------------------------------------------

    def _actions(self) -> None:
        world = self.world
        world.start_controller()
        self.oracle.look()
        actions.apply(world)
        self.oracle.look()
        weighted = [(self._step, STEP_WEIGHT), *_WEIGHTED, (self._cut_power, POWER_CUT_WEIGHT)]
        weighted += [(actions.collect, COLLECT_WEIGHT)] if self.collects else []
        weighted += _MOVING if self.moves else []
        weighted += [(preempting.ask_for_room, ASKING_WEIGHT)] if self.rights else []
        choices, weights = zip(*weighted, strict=True)
        for _ in range(self.rng.randint(ACTIONS_MIN, ACTIONS_MAX)):
            act = self.rng.choices(choices, weights)[0]
            self._set_a_trap()
            if act in (self._step, self._cut_power):
                act()
            else:
                said = act(world)
                world.trouble.unset()
                self._tell(said)
                self.oracle.look()

    def _step(self) -> None:
        lives = self.world.lives
        self._step_of(self.rng.choice(lives) if lives else self.world.start_controller())

    def _step_of(self, life: Life) -> Seen:
        """Let a controller step; one that was left alone owes more than one that was not."""
        world = self.world
        captured = any(record.key.kind == "Capture" for record in self.oracle.look().objects)
        ended = world.step(life)
        resynced = life.resynced
        world.trouble.unset()
        alone = world.trouble.sprung is None
        self._tell(f"step{' resync' if resynced else ''} {ended}")
        seen = self.oracle.look()
        if alone:
            self._no_trouble(life)
        if alone and not ended and len(world.lives) == 1:
            if resynced and captured:  # else nobody asked what the model is
                world.identity_unseen = False
            self.oracle.after_a_clean_step(seen, life, resynced=resynced)
            if resynced:
                world.dropped = False
        return seen

    def _no_trouble(self, life: Life) -> None:
        """A controller that nobody troubled reports no trouble."""
        for key, error in life.controller.troubles:
            raise Broken(f"trouble {key}: {type(error).__name__}: {error}")
        if life.controller.trouble is not None:
            raise Broken(f"trouble: {life.controller.trouble}")

    def _cut_power(self) -> None:
        """Every process dies at once, and the disk forgets what was never forced to it."""
        world = self.world
        world.trouble.unset()
        world.end_every_process()
        worst = self.rng.random() < 0.5
        lost = world.disk.cut_power(lambda: not worst and self.rng.random() < 0.5)
        world.counts["power cut"] += 1
        world.counts["entries lost"] += len(lost)
        self._tell(f"power cut: {len(lost)} lost")
        self.oracle.after_a_power_cut()

    def _set_a_trap(self) -> None:
        trouble, at = self.world.trouble, int(self.rng.expovariate(1 / 25)) + 1
        kind = self.rng.choices(["", "crash", "ENOSPC", "EIO", "meanwhile"], [60, 14, 5, 5, 16])[0]
        trouble.set(kind, at, self._meanwhile if kind == "meanwhile" else None)
        chance = self.world.clock_rng
        if chance.random() < CLOCK_TROUBLE_SHARE:
            at = int(chance.expovariate(1 / 25)) + 1
            trouble.set_clock_trap(at, self.world.trouble_the_clock)
        elif chance.random() < RESYNC_TROUBLE_SHARE:
            trouble.set_clock_trap(1, self.world.trouble_the_clock, "staging-discard")

    def _meanwhile(self) -> None:
        """While somebody is in the middle of something, another one acts."""
        world = self.world
        others = [life for life in world.lives if life is not world.lives[0]]
        if others and self.rng.random() < 0.6:
            ended = world.step(others[0])
            world.say(f"  meanwhile the second controller steps {ended}")
            return
        said = self.rng.choice(_MEANWHILE)(world)
        world.say(f"  meanwhile {said}")

    def _tell(self, said: str) -> None:
        self.steps += 1
        sprung = self.world.trouble.sprung
        self.world.say(f"{said}{f' [{sprung}]' if sprung else ''}")
        self.world.trouble.sprung = None

    # -- without trouble -----------------------------------------------------------

    def _end(self) -> None:
        """Stop the trouble; everything must come right, and stay without a write."""
        world = self.world
        world.trouble.unset()
        world.end_every_process()
        life = world.start_controller()
        self.settle(life)
        self._resync(life)
        if self.moves:
            self._tell(moves.confirm(world))
            self.settle(life)
        for _ in range(4):
            if not world.retry_failed():
                break
            self.settle(life)
        seen = self.settle(life)
        self.oracle.at_the_end(seen)
        before = self._rows()
        self._resync(life)
        found = promises.no_row_was_written(before, self._rows())
        if found:
            raise Broken("\n".join(map(str, found)))

    def _resync(self, life: Life) -> None:
        self.world.clock.advance(self.world.settings.resync_seconds + 1)
        self.settle(life)

    def settle(self, life: Life) -> Seen:
        """Step without trouble until everything is as it should be, and look after each step."""
        world = self.world
        for _ in range(SETTLING_STEPS_MAX):
            seen = self._step_of(life)
            hands = world.busy_hands()
            if not hands and life.controller.idle and not promises.every_object_is_settled(seen):
                return seen
            for hand in hands:
                while hand.busy:
                    world.work(hand)
            world.clock.advance(0.5 if hands else 5.0)
        unsettled = "\n".join(map(str, promises.every_object_is_settled(seen)))
        raise Broken(f"I1 not settled after {SETTLING_STEPS_MAX} steps:\n{unsettled}")

    def _rows(self) -> promises.Rows:
        with self.world.state.database.read() as connection:
            return promises.rows(connection)


@functools.cache
def _settled(number: int) -> Path:
    """Return a state folder with the first spec of each object applied, and settled."""
    folder = new_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    game = Game(0, folder / "state", number, Settings(job_starts_per_minute=4))
    game.world.first_uid = 0
    with game.world.lasting():
        for key, specs in game.world.choices.items():
            game.world.apply(key, specs()[0])
        game.settle(game.world.start_controller())
    return folder / "state"


def prepare() -> None:
    """Make the folders that settled seeds begin from, before any defect is planted."""
    for number in range(len(topologies.TOPOLOGIES)):
        _settled(number)


def new_folder() -> Path:
    """Return a new folder for a world, in memory where there is one."""
    return Path(tempfile.mkdtemp(prefix="sim-", dir=MEMORY if MEMORY.is_dir() else None))
