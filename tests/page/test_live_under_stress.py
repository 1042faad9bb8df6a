"""The live page where answers fail, hang or come late: in the end it shows what there is."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.page.test_live import Live, World, prompts
from tests.simulated import experiment_spec

HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {get: () => hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def world(tmp_path):
    """An experiment, france, that no controller has seen."""
    made = World(tmp_path)
    made.simulation.apply()
    yield made
    made.stop()


@pytest.fixture
def live(chromium, world):
    found = Live(chromium, world.serve())
    found.row("france").wait_for()
    edit(world, 0)
    shows(found, 2)  # from now on it looks at what changes, and no more at everything
    yield found
    found.context.close()


def edit(world, number):
    """Change france; its generation is then two more than the number."""
    world.simulation.apply(experiment_spec(mapping={"minCosine": 0.31 + number / 100}))


def shows(live, generation, name="france"):
    live.row(name).locator(f"[data-generation='{generation}']").wait_for(state="attached")


def until(live, there):
    """Let the page go on until something is there, half a minute at most."""
    for _ in range(600):
        if there():
            return
        live.page.wait_for_timeout(50)
    raise AssertionError("it did not come")


@pytest.mark.parametrize("failure", ["no answer", "a refusal that may pass"])
def test_what_a_failed_look_was_told_is_read_again(live, world, failure):
    failed = []

    def fail(route):
        failed.append(route.request.url)
        if failure == "no answer":
            route.abort()
        else:
            route.fulfill(status=503, json={"message": "try again"})

    live.page.route("**/page/tree/nodes*", fail, times=1)
    edit(world, 1)
    shows(live, 3)
    assert len(failed) == 1
    assert live.page.locator("#connection").get_attribute("data-state") == "live"


def test_what_was_asked_of_a_lost_server_is_not_waited_for(live, world):
    held = []
    live.page.route("**/page/tree/nodes*", lambda route: held.append(route), times=1)  # noqa: PLW0108 - Playwright looks at its parameters
    edit(world, 1)
    until(live, lambda: held)
    port = world.api.port
    world.stop()
    live.page.wait_for_selector("#connection[data-state=lost]")
    world.serve(port)
    live.page.wait_for_selector("#connection[data-state=live]")
    shows(live, 3)


@pytest.fixture
def long_tree(chromium, world):
    """The page of 151 experiments, france the last, once it looks at what changes alone."""
    for number in range(150):
        world.simulation.apply(experiment_spec(prompts=prompts(f"{number} is")), name=f"a{number}")
    found = Live(chromium, world.serve())
    found.row("a0").wait_for()
    world.simulation.apply(name="a0")
    shows(found, 2, "a0")
    yield found
    found.context.close()


def test_a_page_of_the_tree_that_comes_behind_a_change_is_read_again(long_tree, world):
    late = []

    def from_before(route):
        late.append((route, route.fetch()))

    long_tree.page.route("**/page/tree?*continue=*", from_before, times=1)
    long_tree.page.get_by_role("button", name="Show more").scroll_into_view_if_needed()
    until(long_tree, lambda: late)
    edit(world, 1)
    world.simulation.apply(experiment_spec(prompts=prompts("Bonn is")), name="a0")
    shows(long_tree, 3, "a0")  # so it was told of france
    route, answer = late[0]
    route.fulfill(response=answer)
    shows(long_tree, 2)


def test_a_hidden_page_leaves_its_connection_to_others(live, world):
    live.page.evaluate(HIDE, True)
    until(live, lambda: world.api.watches.count == 0)
    edit(world, 1)
    live.page.evaluate(HIDE, False)
    shows(live, 3)
    edit(world, 2)
    shows(live, 4)
    assert world.api.watches.count == 1
