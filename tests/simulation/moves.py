"""What moves under whoever runs: models and dictionaries to other folders, and the code itself."""

from __future__ import annotations

from loopscope.controller.plan.older_rules import let_go, older_work_of
from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.db import applied
from tests.simulation.actions import apply
from tests.simulation.world import World


def move_an_input(world: World) -> str:
    """A model or dictionary is moved or copied to another folder."""
    name = world.rng.choice(["tiny", "/coarse", "/fine"])
    folder = world.inputs.move(name, old_stays=world.rng.random() < 0.3)
    world.counts["input moved"] += 1
    return f"{name} lies in {folder}"


def confirm(world: World) -> str:
    """Somebody lets everything be made again that rests on work of older rules."""
    world.trouble.unset()
    with world.installed.loaded(), world.state.database.read() as connection:
        roots = list(applied.standing(connection))
        older = older_work_of(connection, world.state.artifacts, roots)
    with world.state.database.write() as connection:
        done = let_go(connection, older, now=world.clock.now())
    world.counts["confirmed"] += len(done)
    return f"confirm {', '.join(str(one.key) for one in done) or 'nothing'}"


def change_the_code(world: World) -> str:
    """Another release, an edit of the source, or the first release again, under whoever runs."""
    code = world.installed
    match world.rng.choice(["release", "release", "edit", "back"]):
        case "release":
            for stage in CODE_REVISIONS:
                code.revisions[stage] += world.rng.random() < 0.6
        case "edit":
            code.sources += "'"
        case _:
            code.revisions.update(world.releases[0].revisions)
            code.sources = world.releases[0].sources
    if code not in world.releases:
        world.releases.append(code.copy())
    if world.rng.random() < 0.6:
        for hand in world.hands.values():  # the next job is for a new process
            hand.die()
    world.counts["code changed"] += 1
    said = [apply(world)]
    for life in world.lives[:1]:  # it knows nothing of that, and goes on
        for _ in range(world.rng.randrange(5)):
            if life in world.lives:
                said.append(world.step(life) or "step")
            for hand in world.busy_hands():
                while hand.busy and not hand.paused and not hand.acting:
                    said.append(world.work(hand))
    return f"the code is {code.sources} {code.revisions}; {', '.join(said)}"
