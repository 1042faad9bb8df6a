"""The file of limits: what it may say, and what is refused with its place."""

import json
from pathlib import Path

import pytest
import yaml

from loopscope.controller.config import Config, config_beside, load_config
from loopscope.controller.settings import Settings
from loopscope.specs.errors import InvalidSpec

EVERYTHING = """
jobStartsPerMinute: 60
burst: 10
slots: {"cuda:0": 2, cpu: 1}
executor: ray
rayAddress: head.example:6379
rayResources: {CPU: 4, fast_disk: 0.5}
slotsPerExperiment: 2
memory: {"cuda:0": 24GiB}
stageMemory: {capture: 6GiB, steering: 500MB}
priorityClasses: {high: 6, normal: 0, low: -6}
agingSeconds: 600
freeSpaceFloor: 1GiB
"""


def load(tmp_path, text):
    path = tmp_path / "limits.conf"
    path.write_text(text)
    return load_config(path)


def refused(tmp_path, text):
    with pytest.raises(InvalidSpec) as refusal:
        load(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in refusal.value.problems]


def test_every_field_reaches_the_settings(tmp_path):
    settings = Settings(**load(tmp_path, EVERYTHING).settings())
    assert settings.slot_devices == ("cuda:0", "cuda:0", "cpu")
    assert settings.memory_bytes == {"cuda:0": 24 * 2**30}
    assert settings.stage_memory_bytes == {"capture": 6 * 2**30, "steering": 500 * 10**6}
    assert (settings.executor, settings.ray_address) == ("ray", "head.example:6379")
    assert settings.ray_resources == {"CPU": 4, "fast_disk": 0.5}
    assert (settings.burst, settings.slots_per_experiment) == (10, 2)
    assert settings.limits.aging_seconds == 600
    assert Settings.from_json(settings.to_json()).limits == settings.limits


def test_a_class_is_a_number_or_says_whether_it_preempts(tmp_path):
    text = "priorityClasses: {urgent: {value: 10, preemptionPolicy: LowerPriority}, low: -6}"
    settings = Settings(**load(tmp_path, text).settings())
    assert settings.priority_classes == {"urgent": 10, "low": -6}
    assert settings.preempting_classes == ("urgent",)
    announced = json.loads(json.dumps(settings.to_json()))
    assert list(Settings.from_json(announced).preempting_classes) == ["urgent"]
    assert Settings().preempting_classes == (), "nobody preempts unless the file says so"


def test_the_page_of_commands_shows_every_field():
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    shown = page.partition("Limits can be written")[2].split("```yaml\n")[1].partition("```")[0]
    assert set(yaml.safe_load(shown)) == {field.alias for field in Config.model_fields.values()}


@pytest.mark.parametrize(
    "address",
    ["ray://head:10001", "head", "head:port", "6379", "", "head:0", "head:65536", "head:٣"],
)
def test_an_address_that_ray_would_read_in_another_way_is_refused(tmp_path, address):
    (problem,) = refused(tmp_path, f"rayAddress: '{address}'")
    assert "expected HOST:PORT of the cluster's head, auto, or local" in problem


NUMBERS = (
    "jobStartsPerMinute: {}",
    "burst: {}",
    "slots: {{cpu: {}}}",
    "slotsPerExperiment: {}",
    "memory: {{cpu: {}}}",
    "stageMemory: {{capture: {}}}",
    "priorityClasses: {{high: {}}}",
    "priorityClasses: {{high: {{value: {}}}}}",
    "agingSeconds: {}",
    "freeSpaceFloor: {}",
    "rayResources: {{CPU: {}}}",
    "resourceQuotas: {{default: {{hard: {{slots: {}}}}}}}",
    "resourceQuotas: {{default: {{hard: {{requests.storage: {}}}}}}}",
)


@pytest.mark.parametrize("value", ["true", "yes", ".inf", "-.inf", ".nan", "1e400"])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_is_finite_and_no_truth(tmp_path, field, value):
    assert load(tmp_path, field.format(7))
    (problem,) = refused(tmp_path, field.format(value))
    assert problem.startswith("limits.conf:1:") and "found" in problem


@pytest.mark.parametrize(
    "url", ["http://h:99999/x", "http://h:0/x", "http://h:port/x", "http://[/"]
)
def test_an_address_of_notifications_has_a_port_that_can_be(tmp_path, url):
    (problem,) = refused(tmp_path, f"notifications: {{url: '{url}', secretEnv: A}}")
    assert problem.startswith("limits.conf:1:17: notifications.url: ")


def test_an_empty_file_says_nothing(tmp_path):
    assert load(tmp_path, "# nothing yet\n") == Config()
    assert Settings(**Config().settings()) == Settings()


def test_it_lies_beside_the_state_folder_and_is_no_spec(tmp_path):
    assert config_beside(tmp_path / ".loopscope") == tmp_path / ".loopscope.conf"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobStartsPerMinut: 5", "limits.conf:1:1: jobStartsPerMinut: unknown field; did you mean"),
        ("burst: 0", "limits.conf:1:1: burst: input should be greater than or equal to 1; found 0"),
        ("burst: many", "burst: input should be a valid integer; found 'many'"),
        ("slots: 2", "slots: input should be a valid dictionary; found 2"),
        ("slots: {gpu: 1}", "slots.gpu: 'gpu' is not a device; expected cpu, cuda or cuda:N"),
        ("slots:\n  cpu: 0", "limits.conf:2:3: slots.cpu: input should be greater than"),
        ("memory: {cpu: lots}", "memory.cpu: expected a size, for example 500MB or 8GiB; found"),
        ("stageMemory: {coarse: 1GiB}", "unknown stage 'coarse'; expected one of capture, "),
        ("priorityClasses: {High: 1}", "priorityClasses.High: string should match"),
        ("priorityClasses: {high: 1001}", "high.value: input should be less than or equal to 1000"),
        ("priorityClasses: {high: {}}", "priorityClasses.high.value: field required"),
        (
            "priorityClasses: {high: {value: 1, preemptionPolicy: Always}}",
            "preemptionPolicy: input should be 'LowerPriority' or 'Never'; found 'Always'",
        ),
        (
            "priorityClasses: {high: {value: 1, preemptionPolicies: Never}}",
            "high.preemptionPolicies: unknown field; did you mean 'preemptionPolicy'?",
        ),
        ("burst: 1\nburst: 2", "limits.conf:2:1: burst: key given twice; first at line 1"),
        ("- burst", "expected one mapping of limits"),
        ("burst: 1\n---\nburst: 2", "expected one mapping of limits"),
        ("burst: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(tmp_path, text, told):
    (problem,) = refused(tmp_path, text)
    assert told in problem and problem.startswith("limits.conf:")


def test_several_mistakes_are_told_at_once(tmp_path):
    assert len(refused(tmp_path, "burst: 0\nslots: 2\nmemory: {cpu: x}")) == 3


def test_a_file_that_is_not_there_is_told_by_run_before_anything_is_stored(
    loopscope, experiment, tmp_path
):
    code, _, err = loopscope("run", experiment(), "--config", "none.conf")
    assert code == 2 and "none.conf" in err and not (tmp_path / "state" / "state.db").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slots", "gpu=2"], "expected cpu, cuda"),
        (["--slots", "none"], "expected a number"),
        (["--memory", "cpu=lots"], "is not a size"),
    ],
)
def test_an_option_that_is_mistyped_says_what_was_expected(loopscope, experiment, words, told):
    code, _, err = loopscope("run", experiment(), *words)
    assert code == 2 and told in " ".join(err.replace("│", "").split())
