"""What may happen next. Each action is drawn by chance and does one thing to the world."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loopscope.specs.keys import Key
from loopscope.state.artifacts import collection
from loopscope.state.artifacts.collection import RetentionPolicy, forget_missing, take_stock
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.db import objects, tables
from tests.simulation.fleet import Hand
from tests.simulation.world import FROM_FILES, HEARTBEAT_SECONDS, Life, World

Action = Callable[[World], str]


# -- people ----------------------------------------------------------------------------


def apply(world: World) -> str:
    """Apply one of an object's specs, the one that stands among them."""
    key = world.rng.choice(sorted(world.choices))
    specs = world.choices[key]()
    number = world.rng.randrange(len(specs)) if world.rng.random() < 0.7 else 0
    ended = world.apply(key, specs[number])
    return f"apply {key} #{number} {ended}"


def edit_back_and_forth(world: World) -> str:
    """Edit and take the edit back before anybody looked."""
    key = world.rng.choice(sorted(world.choices))
    before = world.applied().get(key)
    if before is None:
        return apply(world)
    other = world.rng.choice(world.choices[key]())
    return f"edit {key} {world.apply(key, other)} and back {world.apply(key, before)}"


def relabel(world: World) -> str:
    """Change what is no spec."""
    key = world.rng.choice(sorted(world.choices))
    spec = world.applied().get(key)
    if spec is None:
        return apply(world)
    return f"label {key} {world.apply(key, spec, {'n': str(world.rng.randrange(3))})}"


def delete(world: World) -> str:
    """Delete what somebody applied."""
    keys = sorted(world.applied())
    if not keys:
        return apply(world)
    key = world.rng.choice(keys)
    return f"delete {key} {world.delete(key)}"


def prune(world: World) -> str:
    """Some files of the watched folder are gone."""
    from_files = [key for key in sorted(world.choices) if key.name in FROM_FILES]
    kept = {key for key in from_files if world.rng.random() < 0.6}
    return f"prune all but {', '.join(map(str, sorted(kept)))} {world.prune(kept)}"


def delete_a_child(world: World) -> str:
    """Delete what an experiment owns, behind its back."""
    with world.state.database.read() as connection:
        owned = [record.key for record in objects.listed(connection) if record.owner]
    if not owned:
        return delete(world)
    key = world.rng.choice(owned)
    return f"delete {key} {world.delete(key)}"


def retry(world: World) -> str:
    return f"retried {world.retry_failed()} jobs"


def replace_the_model(world: World) -> str:
    """The model's files change under its name."""
    identity = world.rng.choice(["tiny", "tiny-2"])
    if identity != world.inputs.identity.get("tiny", "tiny"):
        world.inputs.identity["tiny"] = identity
        world.identity_unseen = True
        if identity not in world.identities:
            world.identities.append(identity)
    return f"the model is {identity}"


# -- the disk --------------------------------------------------------------------------


def harm_an_artifact(world: World) -> str:
    """Somebody or something damages a published artifact."""
    folders = world.published_folders()
    if not folders:
        return "nothing to harm"
    folder = world.rng.choice(folders)
    hashed = world.settings.verify_bytes_per_resync > 0
    name, harm = world.rng.choice(HARMS if hashed else HARMS[:SHOW_WITHOUT_HASHING])
    world.harmed.add(folder.name)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    if name != "remove" and (not files or not (folder / MANIFEST).exists()):
        return "nothing left to harm"
    harm(folder, world.rng.choice(files) if files else folder)
    world.counts[f"harm: {name}"] += 1
    return f"{name} {folder.parent.name}/{folder.name[:8]}"


def _remove(folder: Path, _file: Path) -> None:
    shutil.rmtree(folder)


def _truncate(_folder: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _change_a_byte(_folder: Path, file: Path) -> None:
    """Twice is not back: what harms by chance does not heal by chance."""
    data = bytearray(file.read_bytes() or b"?")
    data[len(data) // 2] = (data[len(data) // 2] + 1) % 256
    file.write_bytes(bytes(data))


def _lose_the_manifest(folder: Path, _file: Path) -> None:
    (folder / MANIFEST).unlink()


def _edit_the_manifest(folder: Path, _file: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["metrics"] = {"d_model": 7}
    manifest["contentDigest"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _add_a_file(folder: Path, _file: Path) -> None:
    (folder / "notes.txt").write_text("hello")


HARMS = [
    ("remove", _remove),
    ("truncate", _truncate),
    ("lose the manifest", _lose_the_manifest),
    ("change a byte", _change_a_byte),
    ("edit the manifest", _edit_the_manifest),
    ("add a file", _add_a_file),
]
SHOW_WITHOUT_HASHING = 3
"""So many of them are noticed at each look."""


def collect(world: World) -> str:
    """Somebody looks what nothing needs, however new, and later collects it."""
    state, now = world.state, world.clock.now()
    keep_last = world.rng.choice([0, 0, 1])
    reachability = Reachability(state.artifacts, keep_last)
    at_once = RetentionPolicy(keep_last, grace_seconds=-math.inf)
    found = take_stock(state, reachability, at_once, now).unneeded
    meanwhile = _meanwhile_needed_again(world) if world.rng.random() < 0.6 else ""

    def take() -> None:
        collection.collect(state, reachability, found, now)
        forget_missing(state, reachability)
        if world.rng.random() < 0.3:
            state.artifacts.empty_trash(now)

    ended = world.attempt(take)
    there = {thing.place for thing in state.artifacts.contents()}
    gone = [thing for thing in found if thing.place not in there]
    if ended:  # what was moved when it ended is still known, until somebody looks
        world.harmed |= {thing.name for thing in gone}
    world.counts["things collected"] += len(gone)
    return f"{meanwhile}collect {len(gone)} of {len(found)} {ended}"


def _meanwhile_needed_again(world: World) -> str:
    """Take an edit back, or make another one, and let a controller act on it."""
    said = apply(world)
    life = _life(world)
    words = [world.step(life) or "step" for _ in range(2) if life in world.lives]
    return f"{said}, {', '.join(words)}, "


# -- time and wake-ups -----------------------------------------------------------------


def pass_time(world: World) -> str:
    seconds = world.rng.choice([0.1, 0.5, 1.0, 3.0, 12.0, 40.0])
    world.pass_time(seconds)
    return f"{seconds} s pass"


def set_the_clock(world: World) -> str:
    """Somebody sets the date; no time passes."""
    seconds = world.rng.choice([35.0, 700.0, 7200.0, -2.0, -45.0, -600.0])
    world.clock.set(seconds)
    world.counts["clock forward" if seconds > 0 else "clock back"] += 1
    return f"the clock is set by {seconds} s"


def drop_wake_ups(world: World) -> str:
    """Changes and ends of jobs are not heard of."""
    for life in world.lives:
        life.controller.queue._high.clear()
        life.controller.queue._low.clear()
        with world.state.database.read() as connection:
            life.controller._version = objects.resource_version(connection)
        life.fleet.ended.clear()
    world.dropped = True
    world.counts["wake-ups dropped"] += 1
    return "wake-ups are dropped"


def repeat_wake_ups(world: World) -> str:
    """Old and new keys and ends of jobs are announced again, in any order."""
    with world.state.database.read() as connection:
        keys = [record.key for record in objects.listed(connection)]
    keys += [Key("Capture", "default", "never-there"), *world.choices]
    world.rng.shuffle(keys)
    for life in world.lives:
        for key in keys:
            life.controller.queue.add(key)
        life.fleet.ended += [world.rng.randrange(12) for _ in range(3)]
        world.rng.shuffle(life.fleet.ended)
    world.counts["wake-ups repeated"] += 1
    return "wake-ups are repeated and shuffled"


def shorten_the_log(world: World) -> str:
    """The change log forgets, so that a reader that is behind is told Gone."""
    world.trouble.unset()
    with world.state.database.write() as connection:
        newest = objects.resource_version(connection)
        old = tables.changes.c.resource_version <= newest - world.rng.randrange(1, 4)
        connection.execute(tables.changes.delete().where(old))
    world.counts["change log shortened"] += 1
    return "the change log forgets"


# -- workers ---------------------------------------------------------------------------


def work(world: World) -> str:
    """A worker goes on with its job, usually for more than one piece."""
    hand = _some(world, lambda hand: not hand.paused)
    if hand is None:
        return "nobody works"
    if world.is_orphan(hand) and world.rng.random() < 0.4:
        what = hand.what
        world.release(hand)
        return f"{what} is released"
    words = []
    for _ in range(world.rng.choice([1, 2, 9])):
        if not hand.busy or hand.acting:
            break
        words.append(world.work(hand))
    return f"{hand.what} {' '.join(words)}"


def pause(world: World) -> str:
    hand = _some(world, lambda hand: not hand.paused)
    if hand is None:
        return "nobody to pause"
    hand.paused = True
    world.counts["worker paused"] += 1
    return f"{hand.what} is paused"


def come_back(world: World) -> str:
    """A paused worker goes on as if no time had passed, and tries to have its way."""
    hand = _some(world, lambda hand: hand.paused)
    if hand is None:
        return "nobody is paused"
    hand.paused = False
    if world.rng.random() < 0.5:
        world.beat(hand)
    words = []
    while hand.busy and not hand.acting and world.rng.random() < 0.9:
        words.append(world.work(hand))
    return f"{hand.name} comes back: {' '.join(words)}"


def sleep_too_long(world: World) -> str:
    """A worker sleeps while its controller dies and another one takes over; then it wakes up."""
    hand = _some(world, lambda hand: not hand.acting)
    if hand is None or hand.worker is None:
        return "nobody to put to sleep"
    what, worker, job = hand.what, hand.worker, hand.worker.job()
    if job is None or job.state != "running" or job.token != worker.token:
        return "it was fenced already"
    hand.paused = True
    world.trouble.unset()
    for life in list(world.lives):
        world.lose_controller(life, with_workers=hand not in life.fleet.mine)
    life = world.start_controller()
    for _ in range(int(world.settings.lease_seconds / HEARTBEAT_SECONDS) + 1):
        world.step(life)
        world.pass_time(HEARTBEAT_SECONDS)  # the others are heard of
    steps = world.rng.randrange(1, 4)
    for _ in range(steps):
        world.step(life)
    for other in world.busy_hands():
        if other is not hand and world.rng.random() < 0.5:
            world.work(other)
    world.counts["worker overslept"] += 1
    for write in world.rng.sample(["heartbeat", "release", "failure", "artifact"], 4):
        with hand.code.loaded():
            world.attempt(partial(worker.write_anyway, job, write))
    hand.die()
    return f"{what} sleeps for {steps} steps too long, then {worker.outcome}"


def kill_a_worker(world: World) -> str:
    hand = _some(world, lambda _: True)
    if hand is None:
        return "nobody to kill"
    hand.die()
    world.counts["worker killed"] += 1
    return f"{hand.what} is killed"


def die_while_publishing(world: World) -> str:
    """A worker dies between two lines of its last transaction."""
    hand = _some(world, lambda hand: not hand.paused and not hand.acting)
    if hand is None:
        return "nobody publishes"
    place = world.rng.choice(PUBLISHING)
    world.trouble.set("crash", place=place)
    while hand.busy:
        world.work(hand)
    return f"{hand.what} dies at {place}"


PUBLISHING = (
    "fsync",
    "replace",
    "artifact-sealed",
    "artifact-rename",
    "artifact-renamed",
    "transaction-commit",
    "artifact-committed",
)


def fail_the_next_job(world: World) -> str:
    reason, transient = world.rng.choice([("Odd", False), ("DiskFull", True), ("Odd", True)])
    life = _life(world)
    life.fleet.failure = (reason, transient)
    return f"the next job fails: {reason} {transient}"


# -- controllers -----------------------------------------------------------------------


def second_controller(world: World) -> str:
    """The leader lock is lost: two controllers at once."""
    if len(world.lives) > 1:
        life = world.rng.choice(world.lives)
        world.lose_controller(life, with_workers=world.rng.random() < 0.5)
        return "one of two controllers dies"
    world.start_controller()
    world.counts["second controller"] += 1
    return "a second controller starts"


def restart(world: World) -> str:
    life = _life(world)
    world.lose_controller(life, with_workers=world.rng.random() < 0.4)
    world.start_controller()
    world.counts["controller killed"] += 1
    return "the controller is killed and started again"


def _life(world: World) -> Life:
    return world.rng.choice(world.lives) if world.lives else world.start_controller()


def _some(world: World, fits: Callable[[Hand], bool]) -> Hand | None:
    hands = [hand for hand in world.busy_hands() if fits(hand)]
    return world.rng.choice(hands) if hands else None
