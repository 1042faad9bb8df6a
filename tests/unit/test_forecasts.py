"""What is foreseen of work that never ran, and how it stands beside what the work then took."""

import json
from dataclasses import replace

import pytest

from loopscope.inputs.model_shape import block_weights
from loopscope.specs.actions import Action
from loopscope.state.machine_rates import RATES_FILE, MachineRates, read_rates, write_rates
from loopscope.views.forecasts import BY_SHAPES, IN_FEWER_BITS, SIZES_ONLY, Forecaster
from loopscope.views.work import (
    DictionaryShape,
    ModelShape,
    Steered,
    Texts,
    capture_work,
    decomposition_work,
    geometry_work,
    splitting_work,
    steering_work,
)
from tests.layouts import REPOSITORIES
from tests.simulated import Simulation

RATES = MachineRates(flops=1e11, bandwidth=1e10, threads=2, measured_at=0.0)
GEMMA = {
    "model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": 18, "head_dim": 256,
    "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 2048,
    "vocab_size": 262_144,
}  # fmt: skip
COARSE, FINE = DictionaryShape(2304, 16_384), DictionaryShape(2304, 262_144)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, without the rates of any machine."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOPSCOPE_DEVICE", raising=False)
    return tmp_path / "cache"


def planned(loopscope, path):
    code, out, err = loopscope("plan", "-f", path, "-o", "json")
    assert code == 0, err
    return {stage["name"]: stage for stage in json.loads(out)["stages"]}


def test_the_products_of_a_geometry_are_those_of_its_three_matrices():
    work = geometry_work(COARSE, FINE)
    pairs, own, law = 16_384 * 262_144, 16_384**2, 262_144 * 2304
    assert work.flops == 2 * 2304 * (pairs + own + law)
    assert work.seconds(RATES) == pytest.approx(work.flops / (0.8 * 1e11))
    assert work.anonymous < 1.5e9


def test_a_stage_takes_the_longer_of_products_and_bytes():
    work = decomposition_work(FINE, Texts(400, 5_000.0), 400.0, 5_000.0)
    slow_copy = MachineRates(1e11, 1e8, 2, 0.0)
    assert work.seconds(RATES) == pytest.approx(0.2 + work.flops / (0.73 * 1e11))
    assert work.seconds(slow_copy) == pytest.approx(0.2 + work.moved / 1e8)
    assert work.anonymous < 1.5e9


def test_a_capture_passes_each_text_with_its_bos_through_the_blocks_below():
    model = ModelShape(640, 18, 5_570_560, 262_144)
    work = capture_work(model, 13, Texts(400, 4_983.0), 400.0, Texts(106, 4_964.0))
    assert work.flops == 2 * (4_983 + 400 + 4_964 + 106) * 13 * 5_570_560
    assert work.disk == pytest.approx(13_765_613, rel=0.01)  # what the France example wrote


def test_more_samples_cost_a_steering_in_proportion_beyond_its_budgets():
    model = ModelShape(640, 18, 5_570_560, 262_144)

    def flops(samples):
        neutral, openings = Texts(20, 200.0), Texts(20, 120.0)
        return steering_work(model, Steered(7, 6, openings, samples, 40, neutral, 5, 0.0)).flops

    assert flops(3) - flops(2) == pytest.approx(flops(2) - flops(1))
    assert flops(2) < 2 * flops(1)


def test_the_weights_of_a_block_follow_from_a_config():
    attention, mlp = 640 * 256 * (2 * 4 + 2 * 1), 3 * 640 * 2048
    assert block_weights(GEMMA, 640) == attention + mlp
    gpt2 = {"model_type": "gpt2", "n_head": 12}
    assert block_weights(gpt2, 768) == 4 * 768**2 + 2 * 768 * 3072
    assert block_weights({"hidden_size": 640}, 640) is None


def test_work_that_never_ran_is_foreseen_by_its_shapes(loopscope, experiment, cache, tmp_path):
    path = experiment()
    config = {**GEMMA, "hidden_size": 8, "num_hidden_layers": 2}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    write_rates(cache, "cpu", RATES)
    found = planned(loopscope, path)
    assert {stage["estimatedFrom"] for stage in found.values()} == {BY_SHAPES}
    assert all(stage["estimatedSeconds"] > 0 for stage in found.values())
    assert all(stage["estimatedMemoryBytes"] > 0 for stage in found.values())
    words = loopscope("plan", "-f", path)[1]
    assert "of memory (by shapes and this machine's rates)" in words
    loopscope("apply", "-f", path)
    checks = json.loads(loopscope("doctor", "-f", path, "-o", "json")[1])["checks"]
    (work,) = (check["found"] for check in checks if check["name"] == "work")
    assert "stages: about" in work and "of which nothing is known" not in work


def test_a_chain_is_foreseen_before_it_ran_with_its_splitting_graphs(
    loopscope, experiment, cache, tmp_path
):
    chain = [{"path": str(tmp_path / name)} for name in ("coarse", "fine", "fine")]
    path = experiment(lambda spec: spec.update(dictionaries=chain, splitting={"draws": 50}))
    write_rates(cache, "cpu", RATES)
    found = planned(loopscope, path)
    assert "x-1-2-splitting" in found and "x-2-3-splitting" in found
    for name in ("x-1-2-splitting", "x-2-3-splitting"):
        assert found[name]["estimatedFrom"] == BY_SHAPES
        assert 0.5 < found[name]["estimatedSeconds"] < 5.0


def test_more_draws_and_more_latents_make_a_splitting_graph_longer():
    few = splitting_work(COARSE, COARSE, 200, 300).fixed
    assert few < splitting_work(COARSE, FINE, 200, 300).fixed
    assert few < splitting_work(COARSE, COARSE, 200, 600).fixed < 2 * few


def test_what_is_not_known_is_said_with_the_reason(loopscope, experiment, cache):
    found = planned(loopscope, experiment())
    capture, coarse = found["x-capture"], found["x-coarse"]
    widths = "its header or config does not tell the model's widths"
    assert capture["estimatedFrom"] == f"no past run; {widths}"
    assert (capture["estimatedSeconds"], capture["estimatedBytes"]) == (None, None)
    assert coarse["estimatedFrom"] == f"no past run; {SIZES_ONLY}"
    assert coarse["estimatedSeconds"] is None and coarse["estimatedBytes"] > 0


def test_of_a_model_in_fewer_bits_sizes_are_foreseen_and_no_time(
    loopscope, experiment, cache, tmp_path
):
    path = experiment(lambda spec: spec["model"].update(quantised="int8"))
    config = {**GEMMA, "hidden_size": 8, "num_hidden_layers": 2}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    write_rates(cache, "cpu", RATES)
    found = planned(loopscope, path)
    capture, coarse = found["x-capture"], found["x-coarse"]
    assert capture["estimatedFrom"] == f"no past run; {IN_FEWER_BITS}"
    assert capture["estimatedSeconds"] is None and capture["estimatedBytes"] > 0
    assert coarse["estimatedFrom"] == BY_SHAPES


def test_whole_texts_are_other_work_than_rows(loopscope, experiment, cache, tmp_path):
    repository = REPOSITORIES["temporal"]
    (tmp_path / repository.path).mkdir(parents=True)
    for name, data in repository.published().items():
        (tmp_path / name).write_bytes(data)
    fine = {"path": f"../{repository.path}"}
    found = planned(loopscope, experiment(lambda spec: spec["dictionaries"].update(fine=fine)))
    assert found["x-coarse"]["estimatedBytes"] > 0 and found["x-fine"]["estimatedBytes"] is None
    assert "its dictionary reads whole texts" in found["x-fine"]["estimatedFrom"]


def test_history_goes_before_shapes_and_shapes_before_runs_of_other_inputs(
    loopscope, experiment, cache, tmp_path
):
    loopscope("apply", "-f", experiment())
    Simulation(tmp_path / "state").settle()
    write_rates(cache, "cpu", RATES)
    edited = experiment(lambda spec: spec.update(mapping={"minCosine": 0.5}))
    assert planned(loopscope, edited)["x-mapping"]["estimatedFrom"] == "the run before"

    def other(spec):
        spec["dictionaries"]["fine"]["path"] = "../finer"

    (tmp_path / "fine").rename(tmp_path / "finer")
    weights = tmp_path / "finer/sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    path = experiment(other, lambda text: text.replace("name: x\n", "name: y\n", 1))
    assert planned(loopscope, path)["y-fine"]["estimatedFrom"] == BY_SHAPES


def test_a_finished_stage_shows_what_was_predicted_beside_what_it_took(
    loopscope, experiment, cache, tmp_path
):
    loopscope("apply", "-f", experiment())
    Simulation(tmp_path / "state").settle()
    write_rates(cache, "cpu", RATES)
    coarse = planned(loopscope, experiment(lambda spec: spec.update(mapping={"minCosine": 0.5})))[
        "x-coarse"
    ]
    assert coarse["state"] == "cached" and coarse["tookSeconds"] == 200.0
    assert coarse["estimatedSeconds"] == pytest.approx(0.2, abs=0.1)
    described = loopscope("describe", "decomposition", "x-coarse")[1]
    assert f"3m20s (predicted 1s {BY_SHAPES})" in described


def test_a_geometry_is_foreseen_by_the_two_dictionaries_of_its_payload():
    def ref(d_sae):
        return {"d_in": 2304, "d_sae": d_sae}

    payload = {"coarse": ref(16_384), "fine": ref(262_144)}
    action = Action("geometry", payload, payload)
    found = Forecaster(None, RATES).of_shared(action)
    assert found.seconds == pytest.approx(geometry_work(COARSE, FINE).seconds(RATES), abs=0.1)


def test_rates_are_kept_by_machine_and_device_and_whatever_else_stands_there_is_no_rate(cache):
    assert read_rates(cache) is None
    write_rates(cache, "cpu", RATES)
    write_rates(cache, "cuda:0", MachineRates(1e13, 1e12, 1, 5.0))
    write_rates(cache, "cpu", RATES)
    assert read_rates(cache) == RATES
    assert read_rates(cache, "cuda:0").flops == 1e13
    for broken in ("", "[]", "{", json.dumps({name: {"flops": 1} for name in ("a", "b")})):
        (cache / RATES_FILE).write_text(broken)
        assert read_rates(cache) is None
    write_rates(cache, "cpu", RATES)
    assert read_rates(cache) == RATES


def test_a_worker_records_the_better_rates_of_its_machine_once_an_hour(cache, monkeypatch):
    from loopscope.worker import machine_probe

    found = MachineRates(1e11, 2e10, machine_probe.torch.get_num_threads(), 0.0)
    monkeypatch.setattr(machine_probe, "probe", lambda device, now: replace(found, measured_at=now))
    machine_probe.keep_rates(cache, "cuda:99", 10.0)
    assert read_rates(cache, "cuda:99") is None
    machine_probe.keep_rates(cache, "cpu", 10.0)
    assert read_rates(cache) == replace(found, measured_at=10.0)
    found = replace(found, flops=9e10, bandwidth=3e10)
    machine_probe.keep_rates(cache, "cpu", 3_000.0)
    assert read_rates(cache).bandwidth == 2e10
    machine_probe.keep_rates(cache, "cpu", 4_000.0)
    assert (read_rates(cache).flops, read_rates(cache).bandwidth) == (1e11, 3e10)
    write_rates(cache, "cpu", replace(found, flops=9e12, threads=found.threads + 1))
    machine_probe.keep_rates(cache, "cpu", 4_001.0)
    assert read_rates(cache).flops == 9e10


def test_a_probe_finds_rates():
    from loopscope.worker.machine_probe import probe

    found = probe("cpu", 5.0)
    assert found.flops > 0 and found.bandwidth > 0 and found.measured_at == 5.0


def test_a_cache_that_cannot_be_written_stops_no_worker(tmp_path):
    from loopscope.worker.machine_probe import keep_rates

    (tmp_path / "file").write_text("")
    keep_rates(tmp_path / "file", "cpu", 0.0)
    assert read_rates(tmp_path / "file") is None
