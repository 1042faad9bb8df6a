"""The live page in a browser: it shows what there is and what changes, and does what it says."""

from __future__ import annotations

import http.server
import threading
import time
from contextlib import ExitStack

import pytest

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.state.db import events, objects, pauses
from loopscope.views.numbers import age
from tests.fake_stages import D_MODEL
from tests.served import TOKEN, Served, served
from tests.simulated import Simulation, experiment_spec, texts
from tests.unit.reports_case import build

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>&amp;"


class World:
    """A state folder with a controller in a bottle, and a server that can be stopped."""

    def __init__(self, folder, **settings):
        self.folder, self.settings = folder, settings
        self.simulation = Simulation(folder / "state")
        self.simulation.clock.time = time.time()
        self._open = ExitStack()
        self.api: Served | None = None

    def serve(self, port=0):
        now = self.simulation.clock.now
        limits = {"writable": True, "poll_seconds": 0.05, **self.settings}
        self.api = self._open.enter_context(
            served(self.simulation.state, self.folder, now, port=port, **limits)
        )
        return self.api

    def stop(self):
        self._open.close()


class Live:
    """The page, with all that it said on its console and asked of the network."""

    def __init__(self, browser, api, path="", **options):
        options = {"viewport": {"width": 1100, "height": 900}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(m.text))
        self.page.on("pageerror", lambda e: self.said.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.address = f"http://127.0.0.1:{api.port}"
        self.page.goto(f"{self.address}/#token={TOKEN}")
        self.page.wait_for_selector("#connection[data-state=live]")
        if path:
            self.go(path)

    def go(self, path):
        self.page.evaluate("hash => { location.hash = hash; }", f"#/{path}")

    def row(self, name):
        return self.page.locator(".tree tbody tr").filter(
            has=self.page.get_by_role("link", name=name, exact=True)
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """france is Ready, oslo stands still, a sweep is Ready, rome is paused."""
    made = World(tmp_path_factory.mktemp("live"))
    simulation = made.simulation
    simulation.apply()
    simulation.settle()
    simulation.apply(sweep_spec(), name="sweep")
    simulation.settle(300)
    simulation.workers.failures["steering"] = ("BudgetNotMet", False)
    simulation.apply(experiment_spec(prompts=prompts("Oslo is")), name="oslo")
    simulation.settle()
    simulation.workers.failures.clear()
    with simulation.state.database.write() as connection:
        pauses.pause(connection, "experiment/default/rome", now=simulation.clock.now())
        key = Key("Experiment", "default", "france")
        events.record(connection, key, "Warning", "Noted", HOSTILE, now=simulation.clock.now())
    simulation.apply(experiment_spec(prompts=prompts(HOSTILE)), name="rome")
    for _ in range(3):
        simulation.step()
    made.serve()
    yield made
    made.stop()


@pytest.fixture
def live(chromium, world):
    found = Live(chromium, world.api)
    yield found
    found.context.close()


def prompts(text):
    return {"target": texts(text, "and more"), "neutral": texts("Rome is", "Bern is")}


def sweep_spec():
    values = {"low": {"mapping.minCosine": 0.3}, "high": {"mapping.minCosine": 0.5}}
    return experiment_spec(matrix={"cosine": values})


# -- what it shows ---------------------------------------------------------------------------


def test_the_page_shows_what_there_is_and_asks_its_server_alone(live):
    live.row("france").wait_for()
    assert "Ready" in live.row("france").inner_text()
    assert "Supported" in live.row("france").inner_text()
    assert "paused" in live.row("rome").inner_text()
    assert all(one.startswith(live.address) for one in live.asked)
    assert live.said == []
    assert TOKEN not in live.page.url and not any(TOKEN in one for one in live.asked[1:])


def test_what_stands_still_is_first_with_why_and_what_to_do(live):
    card = live.page.locator(".cards li").first
    card.wait_for()
    text = card.inner_text()
    assert "steering/oslo-steering" in text and "BudgetNotMet" in text
    command = card.locator("code").inner_text()
    assert command == "loopscope retry steering oslo-steering" and "`" not in text


def test_what_an_object_owns_is_opened_with_the_keyboard(live):
    opener = live.row("france").get_by_role("button")
    opener.focus()
    live.page.keyboard.press("Enter")
    live.row("mapping").wait_for()
    assert live.page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    live.page.keyboard.press("Enter")
    live.row("mapping").wait_for(state="detached")


def test_texts_from_outside_are_shown_as_texts(live):
    live.go("events")
    live.page.get_by_text(HOSTILE).wait_for()
    live.go("object/Experiment/default/rome")
    live.page.get_by_text("Paused by experiment/rome").wait_for()
    live.go(f"object/Experiment/default/{HOSTILE}".replace("/>", ">"))
    live.page.locator(".trouble").wait_for()
    assert live.page.locator("img").count() == 0
    assert live.page.title().startswith("Object <img")


def test_one_object_says_why_with_its_jobs_and_events(live):
    live.go("object/Experiment/default/oslo")
    live.page.get_by_text("4 of 5 stages done").wait_for()
    page = live.page.locator("main").inner_text()
    assert "Next (you):" in page and "BudgetNotMet" in page
    assert live.page.get_by_role("region", name="Jobs, newest first").get_by_text("failed").count()


def test_queue_workers_and_comparison_have_their_panels(live):
    live.go("queue")
    live.page.get_by_text("Slots: ").wait_for()
    live.go("workers")
    live.page.get_by_role("cell", name="idle").wait_for()
    assert live.said == []


def test_a_sweep_is_sorted_narrowed_and_brushed(live):
    live.go("sweep/default/sweep")
    names = live.page.locator(".sweep tbody th")
    names.first.wait_for()
    assert names.all_inner_texts() == ["sweep-high", "sweep-low"]
    sort = live.page.get_by_role("button", name="cosine")
    sort.click()
    sort.click()
    assert names.all_inner_texts() == ["sweep-low", "sweep-high"]
    live.page.locator("#axis-cosine").select_option("high")
    assert names.all_inner_texts() == ["sweep-high"]
    live.page.get_by_role("button", name="Show all").click()
    assert live.page.locator(".strip circle").count() == 2
    live.page.locator("#brush-0").fill("0.9")
    live.page.keyboard.press("Tab")
    assert names.count() == 0 and live.page.locator("circle.out").count() == 2


def test_below_the_grid_of_neighbouring_pairs_stands_what_becomes_of_latents(chromium, tmp_path):
    world = World(tmp_path)
    for number, name in enumerate(("/coarse", "/fine", "/finest")):
        world.simulation.inputs.answers[name] = {"facts": dictionary(name, 32 * 2**number)}
    further = {"dictionaries": {"coarse": {"path": "/fine"}, "fine": {"path": "/finest"}}}
    matrix = {"pair": {"first": {}, "second": further}}
    world.simulation.apply(experiment_spec(splitting={}, matrix=matrix), name="levels")
    world.simulation.settle(300)
    live = Live(chromium, world.serve(), "sweep/default/levels")
    live.page.get_by_role(
        "heading", name="Resolution: 32 latents → 64 latents → 128 latents"
    ).wait_for()
    fates = live.page.get_by_role("region", name="Fates").locator("tbody tr")
    assert [row.split("\t") for row in fates.all_inner_texts()] == [
        ["32 latents", "64 latents", "1 lost, 1 split", "1 born, 2 part", "4", "0.5", "0.010"],
        ["64 latents", "128 latents", "1 lost, 1 split", "1 born, 2 part", "4", "0.5", "0.010"],
    ]
    assert live.said == []
    live.context.close()
    world.stop()


def dictionary(name, latents):
    ref = {"identity": digest(name), "folder": f"/cache{name}", "d_sae": latents}
    return {"ref": ref, "d_in": D_MODEL, "d_sae": latents, "hook_name": None}


def test_ages_are_the_words_of_the_terminal(live):
    seconds = [
        0,
        59,
        119,
        120,
        599,
        600,
        10_799,
        10_800,
        28_799,
        28_800,
        172_800,
        700_000,
        9e7,
        3e8,
    ]
    script = "seconds => import('/page/static/core.js').then(core => seconds.map(core.age))"
    assert live.page.evaluate(script, seconds) == [age(one) for one in seconds]


# -- what changes ----------------------------------------------------------------------------


def test_a_change_arrives_and_the_focus_stays(chromium, tmp_path):
    world = World(tmp_path)
    world.simulation.apply()
    world.simulation.settle()
    live = Live(chromium, world.serve())
    live.row("france").get_by_role("link").focus()
    world.simulation.apply(experiment_spec(mapping={"minCosine": 0.5}))
    world.simulation.apply(experiment_spec(prompts=prompts("Oslo is")), name="oslo")
    live.row("oslo").wait_for()
    live.row("france").get_by_text("Reconciling").wait_for()
    assert live.page.evaluate("document.activeElement.innerText") == "france"
    world.simulation.settle()
    live.row("oslo").get_by_text("Supported").wait_for()
    world.simulation.delete("oslo")
    live.row("oslo").wait_for(state="detached")
    assert live.said == []
    live.context.close()
    world.stop()


def test_a_server_that_was_gone_is_found_again_with_what_changed_meanwhile(chromium, tmp_path):
    world = World(tmp_path)
    world.simulation.apply()
    port = world.serve().port
    live = Live(chromium, world.api)
    world.stop()
    live.page.wait_for_selector("#connection[data-state=lost]")
    assert "connection lost since" in live.page.locator("#connection").inner_text()
    world.simulation.apply(name="oslo")
    world.serve(port)
    live.page.wait_for_selector("#connection[data-state=live]")
    assert "live again" in live.page.locator("#connection").inner_text()
    live.row("oslo").wait_for()
    live.context.close()
    world.stop()


def test_a_page_that_was_away_too_long_reads_everything_again(chromium, tmp_path, monkeypatch):
    world = World(tmp_path)
    world.simulation.apply()
    port = world.serve().port
    live = Live(chromium, world.api)
    live.row("france").wait_for()
    world.stop()
    live.page.wait_for_selector("#connection[data-state=lost]")
    monkeypatch.setattr(objects, "CHANGES_KEPT", 1)
    for number in range(120):  # the log is trimmed now and then
        world.simulation.apply(experiment_spec(mapping={"topK": number + 1}), name="oslo")
    world.simulation.delete("oslo")
    world.simulation.apply(name="rome")
    world.serve(port)
    live.row("rome").wait_for()
    assert live.row("oslo").count() == 0
    live.context.close()
    world.stop()


# -- what it does ----------------------------------------------------------------------------


def test_an_action_says_what_the_command_says(chromium, tmp_path):
    world = World(tmp_path)
    world.simulation.workers.failures["steering"] = ("BudgetNotMet", False)
    world.simulation.apply()
    world.simulation.settle()
    world.simulation.workers.failures.clear()
    live = Live(chromium, world.serve(), "object/Experiment/default/france")
    live.page.get_by_role("button", name="Retry").click()
    live.page.get_by_text("job 6 is retried as job 7").wait_for()
    live.page.get_by_role("button", name="Suspend").click()
    live.page.get_by_role("button", name="Resume").click()
    live.page.get_by_text("experiment/france resumed").wait_for()
    live.page.get_by_role("button", name="Cancel").click()
    live.page.get_by_role("button", name="Leave it").click()
    assert world.simulation.jobs()[-1].state == "pending"
    live.page.get_by_role("button", name="Cancel…").click()
    live.page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    live.page.get_by_text("steering job 7 was cancelled by hand").wait_for()
    assert world.simulation.jobs()[-1].state == "cancelled"
    assert live.said == []
    live.context.close()
    world.stop()


def test_a_server_that_only_reads_offers_nothing_to_press(chromium, tmp_path):
    world = World(tmp_path, writable=False)
    world.simulation.apply()
    live = Live(chromium, world.serve(), "object/Experiment/default/france")
    live.page.get_by_text("This server only reads").wait_for()
    assert live.page.locator("[data-verb]").count() == 0
    assert live.page.locator("#mode").inner_text() == "read-only"
    live.context.close()
    world.stop()


def test_without_a_token_the_page_asks_for_it_and_shows_nothing(chromium, world):
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{world.api.port}/")
    page.get_by_label("Token").wait_for()
    assert "france" not in page.content()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("link", name="france", exact=True).wait_for()
    page.close()


FOREIGN = """async ([address, token]) => {
  const what = {verb: "pause", kind: "Experiment", namespace: "default", name: "france"};
  const body = JSON.stringify(what), bearer = {"Authorization": "Bearer " + token};
  const ours = {"Content-Type": "application/json", "X-Loopscope-Page": "1", ...bearer};
  const tried = [];
  for (const options of [
    {method: "POST", body, mode: "no-cors"},
    {method: "POST", body, mode: "no-cors", headers: {"Content-Type": "text/plain"}},
    {method: "POST", body, headers: ours},
    {headers: bearer},
  ]) {
    const path = options.method ? "/page/actions" : "/page/tree";
    try {
      tried.push((await fetch(address + path, options)).type);
    } catch {
      tried.push("refused");
    }
  }
  return tried;
}"""


def test_a_page_of_another_origin_reads_and_changes_nothing(chromium, world):
    other = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    before = world.simulation.rows()
    page = chromium.new_page()
    page.goto(f"http://127.0.0.1:{other.server_address[1]}/")
    tried = page.evaluate(FOREIGN, [f"http://127.0.0.1:{world.api.port}", TOKEN])
    assert set(tried) <= {"refused", "opaque"} and tried[2:] == ["refused", "refused"]
    assert world.simulation.rows() == before
    page.close()
    other.shutdown()


def test_a_script_that_slipped_into_the_page_does_not_run(live):
    live.page.evaluate("""() => {
      const script = document.createElement("script");
      script.append("document.title = 'owned'");
      document.body.append(script);
    }""")
    assert live.page.title() != "owned"
    assert any("TrustedScript" in one for one in live.said)
    with pytest.raises(Exception, match="requires 'TrustedHTML'"):
        live.page.evaluate("() => { document.body.innerHTML = '<img src=x onerror=alert(1)>'; }")


def test_the_report_is_embedded_as_of_an_origin_of_its_own(chromium, tmp_path):
    state, _ = build(tmp_path)
    with served(state, tmp_path, time.time) as api:
        live = Live(chromium, api, "object/Experiment/default/france")
        frame = live.page.frame_locator("iframe")
        frame.locator(".explore").wait_for(timeout=120_000)
        inside = next(one for one in live.page.frames if "/page/reports/" in one.url)
        assert inside.evaluate("window.origin") == "null"
        with pytest.raises(Exception, match="SecurityError"):
            inside.evaluate("sessionStorage.getItem('loopscope-token')")
        assert live.said == []
        live.context.close()


def test_a_report_that_could_not_be_made_is_made_once_it_can_be(chromium, tmp_path):
    state, _ = build(tmp_path)

    def refuse(route):
        message = '{"message": "the server was stopped"}'
        route.fulfill(status=503, content_type="application/json", body=message)

    with served(state, tmp_path, time.time) as api:
        live = Live(chromium, api)
        for fails in (refuse, lambda route: route.abort()):
            live.page.route("**/page/reports/**", fails)
            live.go("object/Experiment/default/france")
            live.page.get_by_text("No report: the server").wait_for()
            assert live.page.locator("iframe").get_attribute("src") is None
            live.page.unroute("**/page/reports/**")
            frame = live.page.frame_locator("iframe")
            frame.locator(".explore").wait_for(timeout=120_000)
            live.go("")
        live.context.close()


def test_an_action_without_an_answer_says_what_to_look_at(live):
    live.go("object/Experiment/default/france")
    live.page.route("**/page/actions", lambda route: route.abort())
    live.page.get_by_role("button", name="Retry").click()
    live.page.get_by_text("The server did not answer: once it is back, look").wait_for()


def test_the_page_offers_what_sweeps_made_to_be_asked_and_compared(live):
    live.go("object/Experiment/default/sweep-high")
    live.page.get_by_role("link", name="Ask the model").click()
    for path, field in (("ask", "Experiment"), ("compare", "Experiment")):
        live.go(path)
        live.page.get_by_label(field, exact=True).wait_for()
        option = live.page.locator('#names option[value="sweep-high"]')
        option.wait_for(state="attached")
        assert live.page.locator('#names option[value="sweep"]').count() == 0


# -- who reads it ----------------------------------------------------------------------------

PLACES = [
    "",
    "queue",
    "events",
    "object/Experiment/default/oslo",
    "sweep/default/sweep",
    "compare",
    "compare/default/france/oslo",
]


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_assistive_technology(chromium, world, path, scheme):
    from axe_playwright_python.sync_playwright import Axe  # comes with playwright, or fails

    live = Live(chromium, world.api, path, color_scheme=scheme)
    live.page.wait_for_selector("main :is(table, .lines, form)")
    found = Axe().run(live.page)
    serious = [
        (one["id"], one["nodes"][0]["html"][:120])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    live.context.close()


@pytest.mark.parametrize("path", PLACES)
def test_no_panel_is_wider_than_a_narrow_window(chromium, world, path):
    live = Live(chromium, world.api, path, viewport={"width": 390, "height": 800})
    live.page.wait_for_selector("main :is(table, .lines, form)")
    assert live.page.evaluate("document.documentElement.scrollWidth") <= 391
    live.context.close()


def test_two_experiments_stand_side_by_side_and_long_values_are_folded(chromium, world):
    live = Live(chromium, world.api, "compare/default/france/oslo")
    live.page.wait_for_selector("main h2", timeout=120_000)
    heads = live.page.locator("main h2").all_inner_texts()
    assert heads[0] == "Verdict" and "Spec: what differs" in heads
    assert live.page.evaluate("document.documentElement.scrollHeight") < 4_000
    assert live.said == []
    live.context.close()
