"""What ``run`` shows while it works: on 80 columns, and where there is no terminal."""

import io
import time

import pytest
from rich.console import Console

from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.machine_rates import MachineRates
from loopscope.state.records import Progress
from loopscope.terminal.live import REPEAT_SECONDS, LiveView, progress_lines, progress_table
from loopscope.views.jobs import job_detail
from loopscope.views.progress import Row, RunProgress, Whole
from tests.hand_built import job
from tests.simulated import Simulation, experiment_spec, settled_experiment

LONG = "a-name-that-goes-on-and-on-for-all-of-the-sixty-three-characters"


def stage(name, word="Queued", kind="Decomposition", **more):
    return Row(Key(kind, "default", name), word, f"why {word}" * 5, **more)


def shown(rows, whole=None, width=80, height=24):
    """Return the lines of the table as a terminal of this size shows them."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True,
                      color_system=None)  # fmt: skip
    whole = whole or Whole(1, 5, 0.3, 240.0, 0)
    console.print(progress_table(rows, whole, width, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_state_name_bar_and_time_left_always_fit(width):
    rows = [
        stage(f"{LONG}-coarse", "Running", share=0.64, left_seconds=7260.0),
        stage(f"{LONG}-fine", "Reconciling", share=0.0, left_seconds=100_000.0),
    ]
    head, first, second, *_, run = shown(rows, width=width)
    assert head.split()[:4] == ["OBJECT", "STATE", "PROGRESS", "LEFT"]
    assert first.startswith("decompo") and "-coarse " in first
    assert "Running" in first and "━" in first and "64%" in first and "121m" in first
    assert "Reconciling" in second and "-fine " in second and "~27h" in second
    assert "1 of 5 stages done, about 4m left" in run
    assert max(map(len, (head, first, second, run))) <= width


def test_a_job_of_which_nothing_was_heard_yet_is_said_to_start():
    assert job_detail(job("running"), None, now=1.0) == "a worker starts"


def test_there_is_a_word_on_what_is_done_where_it_fits():
    row = stage("tiny-coarse", "Running", share=0.5, left_seconds=10.0)
    assert "why Running" in shown([row], width=120)[1]


def test_what_runs_or_needs_somebody_is_shown_where_not_all_fits():
    rows = [stage(f"s{n}", "Ready", share=1.0) for n in range(40)]
    rows += [stage("late", "Running"), stage("broken", "Stalled")]
    lines = shown(rows, height=14)
    assert len(lines) <= 14
    assert any("late" in line for line in lines) and any("broken" in line for line in lines)
    assert any("34 more: 34 Ready" in line for line in lines)


def test_a_line_tells_percent_and_time_left_of_a_job_and_of_the_run():
    row = stage("tiny-coarse", "Running", share=0.645, left_seconds=75.0)
    assert progress_lines([row], Whole(2, 5, 0.529, 310.0, 0)) == [
        f"decomposition/tiny-coarse: 64 %, 75s left ({row.detail})",
        "run: 2 of 5 stages done, 52 %, about 5m10s left",
    ]
    assert "time left not known yet" in str(Whole(0, 5, 0.0, None, 5))
    assert str(Whole(1, 5, 0.9, 0.4, 2)).endswith("90 %, time left not known yet")
    assert str(Whole(4, 5, 0.9, 0.4, 0)).endswith("90 %, done in a moment")
    assert "at least 60s left" in str(Whole(1, 5, 0.0, 60.0, 2))
    assert str(Whole(4, 5, 0.8, 0.0, 0, 1)).endswith("80 %, 1 stage waits for a human")


@pytest.fixture
def running(tmp_path):
    """An experiment whose capture is half done after ten seconds."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    simulation.step()
    with simulation.state.database.write() as connection:
        (job,) = jobs.running(connection)
        at = simulation.clock.now()
        seen = Progress(job.id, "Capturing", 12, 24, "prompts", at - 10, at)
        jobs.report_progress(connection, job.id, job.token, seen)
    return simulation


def test_without_a_terminal_a_run_is_never_silent_for_long(running):
    clock = running.clock
    out = Console(file=io.StringIO(), width=80, force_terminal=False)
    view = LiveView(RunProgress(running.state, [running.get("france").key]), out, clock.now)
    view.refresh()
    changes = out.file.getvalue().splitlines()
    assert "capture/france-capture: Running" in changes
    view.refresh()
    assert out.file.getvalue().splitlines() == changes, "nothing changed"
    for minute in range(1, 3):
        clock.advance(REPEAT_SECONDS)
        view.refresh()
        said = out.file.getvalue().splitlines()[len(changes) :]
        assert len(said) == 2 * minute and REPEAT_SECONDS <= 30
        assert said[-2].startswith("capture/france-capture: 50 %, 10s left (Capturing 12/24")
        assert said[-1] == "run: 0 of 5 stages done, 10 %, at least 10s left"


def test_a_clock_that_was_set_back_does_not_silence_it(running):
    out = Console(file=io.StringIO(), width=80, force_terminal=False)
    times = iter([10_000.0, 10_001.0, 5_000.0])
    view = LiveView(
        RunProgress(running.state, [running.get("france").key]), out, lambda: next(times)
    )
    view.refresh()
    before = len(out.file.getvalue().splitlines())
    view.refresh()
    assert "run: 0 of 5" in out.file.getvalue().splitlines()[before + 1]


def test_the_time_left_of_what_never_ran_is_foreseen_by_its_shapes(running):
    keys, now = [running.get("france").key], running.clock.now()
    rates = MachineRates(flops=1.0, bandwidth=1e10, threads=1, measured_at=0.0)
    rows, whole = RunProgress(running.state, keys).read(now)
    assert (whole.left_seconds, whole.unknown) == (10.0, 4)
    rows, whole = RunProgress(running.state, keys, rates=rates).read(now)
    left = {row.key.kind: row.left_seconds for row in rows}
    assert left["Decomposition"] > 1e3, "a machine of one product a second takes long"
    assert whole.unknown < 4 and whole.left_seconds > 1e3


def test_the_time_left_of_what_ran_before_is_known(tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    simulation.apply(experiment_spec(hook="blocks.1.hook_resid_post"), "other")
    simulation.step_until_running()
    simulation.step()
    key = simulation.get("other").key
    _, whole = RunProgress(simulation.state, [key]).read(time.time())
    assert (whole.done, whole.stages) == (0, 5)
    _, done = RunProgress(simulation.state, [simulation.get("france").key]).read(0.0)
    assert str(done) == "5 of 5 stages done, 100 %, nothing left to do"


def test_a_run_of_many_objects_draws_a_tenth_of_its_time(running):
    """Where a look at all of them takes two seconds, the controller has eighteen between two."""
    clock = running.clock
    view = LiveView(
        RunProgress(running.state, [running.get("france").key]),
        Console(file=io.StringIO(), width=80),
        clock.now,
    )
    looks = []

    def slow_look():
        looks.append(clock.now())
        clock.advance(2.0)

    view.refresh = slow_look
    began = clock.now()
    for _ in range(100):
        view.keep_up()
        clock.advance(1.0)
    spent = 2.0 * len(looks)
    assert 0.08 * (clock.now() - began) <= spent <= 0.12 * (clock.now() - began)
    clock.advance(-1_000.0)
    view.keep_up()
    assert looks[-1] < began, "a clock that was set back does not keep it from looking"
