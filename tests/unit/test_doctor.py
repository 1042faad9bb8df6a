"""``doctor`` says what the machine is, does and has left; its probe measures in another process."""

import json

import pytest

from loopscope.controller.maintenance import doctor
from loopscope.state.machine_rates import MachineRates, read_rates, write_rates


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LOOPSCOPE_DEVICE", raising=False)
    return tmp_path / "cache"


def test_before_any_probe_the_rates_are_not_known_and_the_way_to_them_is_named(loopscope, cache):
    code, out, _ = loopscope("doctor")
    assert code == 0
    assert "Rates:    not measured yet; loopscope doctor --probe does" in out
    assert f"Cache:    {cache}/loopscope: 0 models (0 B), 0 dictionaries (0 B)" in out
    assert "loopscope plan -f SPEC" in out
    found = json.loads(loopscope("doctor", "-o", "json")[1])
    assert found["flopsPerSecond"] is None and found["cores"] >= 1 and found["stateFreeBytes"] > 0


def test_rates_and_what_is_kept_in_the_cache_are_shown(loopscope, cache, tmp_path):
    write_rates(cache, "cpu", MachineRates(1.5e11, 1.84e10, 2, 0.0))
    model = cache / "loopscope/models/abc"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"x" * 2_000)
    (model.parent / "abc.lock").touch()
    out = loopscope("doctor")[1]
    assert "150 GFLOP/s, 18.4 GB/s (cpu, 2 threads, " in out
    assert "1 model (2.0 kB)" in out
    assert not (tmp_path / "state").exists(), "looking makes nothing"


def test_a_probe_that_was_asked_for_is_made_and_recorded(loopscope, cache):
    write_rates(cache, "cpu", MachineRates(1.0, 1.0, 99, 0.0))
    code, _, err = loopscope("doctor", "--probe")
    assert code == 0, err
    found = read_rates(cache)
    assert found.flops > 1e6 and found.threads != 99


def test_a_probe_on_a_device_that_is_not_there_says_what_failed(loopscope, cache, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_DEVICE", "cuda:99")
    code, _, err = loopscope("doctor", "--probe")
    assert code == 1 and "the probe ended with status 1" in err


def test_an_output_that_is_not_known_is_refused(loopscope, cache):
    assert loopscope("doctor", "-o", "yaml")[0] == 2


def checks_of(loopscope, *words):
    code, out, _ = loopscope("doctor", "-o", "json", *words)
    checks = json.loads(out)["checks"]
    return code, {check["name"]: (check["standing"], check["found"]) for check in checks}


@pytest.fixture
def roomy(monkeypatch, cache):
    """A machine with all libraries and much space."""
    monkeypatch.setattr(doctor, "missing_worker_libraries", list)
    monkeypatch.setattr(doctor, "free_bytes", lambda path: 2**40)


def test_a_machine_without_a_state_folder_has_no_problem(loopscope, roomy, tmp_path):
    code, checks = checks_of(loopscope)
    assert code == 0 and checks["folder"][0] == "note" and "control" not in checks
    assert not (tmp_path / "state").exists()


def test_missing_libraries_and_a_full_disk_are_problems(loopscope, roomy, monkeypatch):
    monkeypatch.setattr(doctor, "missing_worker_libraries", lambda: ["torch"])
    monkeypatch.setattr(doctor, "free_bytes", lambda path: 1000)
    code, checks = checks_of(loopscope)
    assert code == 1 and checks["workers"][0] == checks["space"][0] == "problem"
    assert "no job starts" in checks["space"][1]
    assert loopscope("doctor")[1].count("problem: ") == 2


def test_a_token_is_never_printed(loopscope, roomy, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    _, out, err = loopscope("doctor")
    assert "hf_verysecret" not in out + err and "a token is set" in out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert checks_of(loopscope)[1]["hub"][0] == "note"


@pytest.mark.parametrize(
    ("flags", "said"), [("fpu avx2 avx512f", "AVX-512"), ("fpu avx2", "AVX2"), ("fpu", "no AVX2")]
)
def test_the_instructions_of_the_processor_are_named(
    loopscope, roomy, monkeypatch, tmp_path, flags, said
):
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(doctor, "PROCESSOR_FLAGS", tmp_path / "cpuinfo")
    assert checks_of(loopscope)[1]["threads"][1].startswith(said)


def test_what_specs_would_need_is_said_and_a_bad_one_is_refused(loopscope, roomy, experiment):
    path = experiment()
    assert checks_of(loopscope, "-f", path)[1]["work"][0] == "note"
    loopscope("apply", "-f", path)
    assert "stages" in checks_of(loopscope, "-f", path)[1]["work"][1]
    path.write_text(path.read_text().replace("hook:", "hok:"))
    assert loopscope("doctor", "-f", path)[0] == 2


def test_a_settled_state_can_be_read(loopscope, roomy, settled):
    checks = checks_of(loopscope)[1]
    assert checks["folder"][0] == "ok" and "control" in checks
