"""A transcoder reads one place and writes another: each stage looks where it should."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from loopscope.controller.apply.admission import check_experiment_inputs
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import HashMemo
from loopscope.numerics.architectures.transcoder import SkipTranscoder
from loopscope.numerics.steering.reading import streams_of
from loopscope.reconcilers import capture as captures
from loopscope.reconcilers import decomposition as decompositions
from loopscope.reconcilers import experiment
from loopscope.reconcilers import steering as steerings
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.state.failures import TerminalFailure
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.steering import stage as steering
from tests.hand_built import CAPTURED, DICTIONARY, made_ready, stored
from tests.simulated import capture_spec, experiment_spec
from tests.stage_world import NEUTRAL, TARGET, capture_payload, steering_payload, table
from tests.unit.test_controller_admission import spec  # noqa: F401 - a fixture
from tests.unit.test_reconcilers import capture_snapshot, decomposition_snapshot
from tests.unit.test_reconcilers_downstream import steering_snapshot

READ, WRITE = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"


def transcoder(latents: int, seed: int = 0) -> SkipTranscoder:
    """Half of the latents read and write random directions; the first ones write unit vectors."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    generator = torch.Generator().manual_seed(seed)
    decoder = torch.eye(32)[:latents].clone()
    return SkipTranscoder(
        w_enc=normal(32, latents), b_enc=normal(latents), w_dec=decoder, b_dec=normal(32),
        w_skip=normal(32, 32) / 8, apply_b_dec_to_input=False,
    )  # fmt: skip


def streams(world, hook):
    """What plain Hugging Face has at a hook, one array a prompt, without BOS."""
    place = world.model.place(hook)
    return [
        streams_of(world.model.causal, [place], world.model.encode(text))[place][1:]
        for text in TARGET + NEUTRAL
    ]


def captured(world, **changes):
    return world.run(capture, capture_payload(hook=READ, writeHook=WRITE, **changes), "capture")


@pytest.mark.parametrize("positions", ["last", "all"])
def test_a_capture_holds_what_is_read_and_what_is_written(world, positions):
    folder, metrics = captured(world, positions=positions)
    read, written = (load_file(folder / f"{n}.safetensors") for n in ("residual", "written"))
    for found, hook in ((read["residual"], READ), (written["residual"], WRITE)):
        rows = streams(world, hook)
        expected = torch.stack([r[-1] for r in rows]) if positions == "last" else torch.cat(rows)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    text = load_file(folder / "calibration.safetensors")["residual"]
    assert written["calibration"].shape == (len(text), 32)
    norms = json.loads((folder / "norms.json").read_text())
    lengths = torch.cat(streams(world, WRITE)).double().norm(dim=1)
    assert norms["median_norm"] == pytest.approx(float(np.median(lengths)), rel=1e-5)
    assert metrics["d_write"] == 32
    assert sum("at the write hook" in name for name in metrics["preflights"]) >= 2


def test_without_a_write_hook_a_capture_has_no_such_file(world):
    folder, metrics = world.run(capture, capture_payload(hook=READ), "capture")
    assert not (folder / "written.safetensors").exists() and "d_write" not in metrics


def test_what_is_reconstructed_is_what_stands_where_it_writes(world):
    captured(world, positions="all")
    world.dictionaries["t"] = dictionary = transcoder(20)
    payload = {
        "capture": {"digest": "c"}, "dictionary": {"identity": "t"}, "aggregation": "max",
        "splits": ["discover"] * 8,
    }  # fmt: skip
    _, metrics = world.run(decomposition, payload, "decomposition-t", "t")
    x, y = (torch.cat(streams(world, hook)).double() for hook in (READ, WRITE))
    w = {name: getattr(dictionary, name).double() for name in dictionary.required_tensors}
    rebuilt = torch.relu(x @ w["w_enc"] + w["b_enc"]) @ w["w_dec"] + w["b_dec"] + x @ w["w_skip"].T
    fvu = (y - rebuilt).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert metrics["fvu"] == pytest.approx(float(fvu), rel=1e-4)


def test_a_transcoder_of_another_written_width_is_refused(world):
    captured(world)
    narrow = transcoder(20)
    parts = {name: getattr(narrow, name) for name in narrow.required_tensors}
    parts |= {"w_dec": parts["w_dec"][:, :9], "b_dec": parts["b_dec"][:9]}
    parts["w_skip"] = parts["w_skip"][:9]
    world.dictionaries["t"] = SkipTranscoder(**parts, apply_b_dec_to_input=False)
    payload = {
        "capture": {"digest": "c"}, "dictionary": {"identity": "t"}, "aggregation": "last",
        "splits": ["discover"] * 8,
    }  # fmt: skip
    with pytest.raises(TerminalFailure, match="writes vectors of 9 numbers, the capture holds 32"):
        world.run(decomposition, payload, "decomposition-t", "t")


def test_steering_acts_where_it_writes_and_reads_latents_where_it_reads(steering_world):
    world = steering_world
    shutil.rmtree(world.folder / "capture")
    captured(world)
    world.dictionaries |= {"coarse": transcoder(8), "fine": transcoder(16, seed=1)}
    payload = steering_payload(hook=WRITE, readHook=READ, systemPrompt="people liked wine",
                               systemPromptSeparator="", strengths=[1.0],
                               arms=["none", "coarse", "fine", "meanDifference"])  # fmt: skip
    folder, _ = world.run(steering, payload)
    arms = table(folder / "arms.parquet")
    unit = json.loads((world.folder / "capture" / "norms.json").read_text())["median_norm"]
    by_arm = dict(zip(arms["arm"], zip(arms["norm"], arms["kl"], strict=True), strict=True))
    for arm in ("coarse", "fine", "meanDifference"):
        assert by_arm[arm][0] == pytest.approx(unit, rel=1e-6) and by_arm[arm][1] > 0
    for side in ("coarse", "fine"):
        column = f"fixed_text_change_{side}"
        change = dict(zip(arms["arm"], arms[column], strict=True))
        assert change["coarse"] == 0.0, "what is written above moves nothing that is read below"
        assert change["systemPrompt"] > 0.0


def saved(folder, d_in=8, d_out=8, hooks=(READ, WRITE), **changes):
    """A transcoder as SAELens saves it; ``hooks`` may lack where it writes."""
    folder.mkdir()
    named = dict(zip(("hook_name", "hook_name_out"), hooks, strict=False))
    config = {"architecture": "transcoder", "d_in": d_in, "d_sae": 16, "d_out": d_out,
              "apply_b_dec_to_input": False,
              "metadata": {"sae_lens_version": "6.54.0", **named}, **changes}  # fmt: skip
    shapes = {"W_enc": (d_in, 16), "W_dec": (16, d_out), "b_enc": (16,), "b_dec": (d_out,)}
    (folder / "cfg.json").write_text(json.dumps(config))
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    (folder / "sae_weights.safetensors").write_bytes(save(weights))
    return {"path": str(folder)}


@pytest.fixture
def memo(tmp_path):
    return HashMemo(tmp_path / "hashes.json")


def test_a_transcoder_says_where_it_reads_and_writes(tmp_path, memo):
    facts = describe_dictionary(saved(tmp_path / "t", d_out=12), memo=memo)
    assert (facts.hook_name, facts.write_hook, facts.d_in, facts.d_out) == (READ, WRITE, 8, 12)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hooks": (READ,)}, "hook_name_out is missing: a transcoder has to say where it writes"),
        ({"d_out": 9, "architecture": "standard"}, "only a transcoder writes another place"),
        ({"architecture": "standard"}, "cannot both be right"),
        ({"architecture": "skip_transcoder"}, "expected w_skip"),
    ],
)
def test_a_file_that_is_half_a_transcoder_is_refused(tmp_path, memo, changes, told):
    with pytest.raises(InputRefused, match=told):
        describe_dictionary(saved(tmp_path / "t", **changes), memo=memo)


def test_a_spec_says_where_its_transcoders_write(spec, tmp_path, memo):  # noqa: F811
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    plain = dict(spec["dictionaries"])
    spec |= {"hook": READ, "dictionaries": {"coarse": one, "fine": other}}
    told = [message for _, message in check_experiment_inputs(spec, memo)]
    assert told == [f"this is a transcoder that writes at {WRITE}; write writeHook: {WRITE}"] * 2
    spec["writeHook"] = "blocks.1.hook_resid_post"
    told = [message for _, message in check_experiment_inputs(spec, memo)]
    assert len(told) == 2 and all(f"write writeHook: {WRITE}" in message for message in told)
    spec["writeHook"] = WRITE
    assert check_experiment_inputs(spec, memo) == []
    spec["dictionaries"] = {"coarse": {**plain["coarse"], "usableAt": "any"}, "fine": other}
    ((field, message),) = check_experiment_inputs(spec, memo)
    assert field == "spec.dictionaries.coarse.path" and "writes where it reads" in message


def test_a_transcoder_of_another_width_than_the_model_is_refused(spec, tmp_path, memo):  # noqa: F811
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other", d_out=9)
    spec |= {"hook": READ, "writeHook": WRITE, "dictionaries": {"coarse": one, "fine": other}}
    ((_, message),) = check_experiment_inputs(spec, memo)
    assert "writes vectors of width 9" in message and "width 8" in message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"writeHook": "blocks.0.hook_mlp_out", "hook": READ}, "does not lie above hook"),
        ({"writeHook": READ, "hook": READ}, "does not lie above hook"),
    ],
)
def test_a_write_hook_lies_above_the_hook(changes, told):
    with pytest.raises(ValueError, match=told):
        SPEC_BY_KIND["Experiment"].model_validate({**experiment_spec(), **changes})


# -- what the plan says --------------------------------------------------------------------

HOOK = capture_spec()["hook"]
ABOVE = "blocks.3.hook_mlp_out"


def transcoding(**facts):
    """A decomposition by a transcoder of a capture that holds what it writes."""
    metrics = {**CAPTURED.metrics, "d_write": 12}
    held = replace(CAPTURED, metrics=metrics)
    upstream = made_ready(stored("Capture", "cap", capture_spec(writeHook=ABOVE)), held)
    dictionary = {**DICTIONARY, "hook_name": HOOK, "write_hook": ABOVE, "d_out": 12, **facts}
    snapshot = decomposition_snapshot(upstream, dictionary)
    return replace(snapshot, artifacts={held.digest: held})


def test_where_it_writes_is_part_of_a_capture_only_if_it_is_given():
    plain = captures.desired(capture_snapshot()).action
    assert "writeHook" not in plain.payload
    action = captures.desired(capture_snapshot(spec=capture_spec(writeHook=ABOVE))).action
    assert action.payload["writeHook"] == ABOVE and action.digest != plain.digest
    missing = capture_spec(writeHook="blocks.9.hook_mlp_out")
    beyond = captures.desired(capture_snapshot(spec=missing))
    assert beyond.reason == "InputMismatch" and "no blocks.9.hook_mlp_out" in beyond.message


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"write_hook": None, "d_out": None}, "writes where it reads"),
        ({"write_hook": "blocks.3.hook_resid_post"}, "write writeHook: blocks.3.hook_resid_post"),
        ({"d_out": 9}, "writes vectors of width 9"),
    ],
)
def test_a_transcoder_that_does_not_fit_its_capture_needs_a_human(facts, told):
    desired = decompositions.desired(transcoding(**facts))
    assert desired.reason == "InputMismatch" and desired.terminal and told in desired.message
    assert decompositions.desired(transcoding()).action


def test_steering_acts_where_transcoders_write():
    plain = steering_snapshot()
    key = next(key for key in plain.references if key.kind == "Capture")
    written = {**plain.references[key].spec, "writeHook": ABOVE}
    references = {**plain.references, key: replace(plain.references[key], spec=written)}
    payload = steerings.desired(replace(plain, references=references)).action.payload
    assert (payload["hook"], payload["readHook"]) == (ABOVE, HOOK)
    assert "readHook" not in steerings.desired(plain).action.payload
    clamping = replace(steering_snapshot(rules={"method": "clamp"}), references=references)
    desired = steerings.desired(clamping)
    assert desired.terminal and "clamp reads latents where it steers" in desired.message


def test_an_experiment_hands_its_write_hook_to_its_capture():
    record = stored("Experiment", "x", experiment_spec(writeHook=ABOVE))
    specs = {child.key.kind: child.spec for child in experiment.child_manifests(record)}
    assert specs["Capture"]["writeHook"] == ABOVE
