"""What lies beside a model's files decides nothing: it is hashed, refused by name, or not seen."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.models import describe_model
from loopscope.worker import conversion, model_sources
from loopscope.worker.models import load_model
from tests.tiny_models import folder_reference


def quiet(*progress):
    return None


@pytest.fixture
def folder(rope_model_folder, tmp_path):
    return shutil.copytree(rope_model_folder, tmp_path / "model")


def described(folder):
    return describe_model({"name": "tiny", "source": {"folder": str(folder)}})


def refused(folder):
    with pytest.raises(InputRefused) as refusal:
        described(folder)
    assert refusal.value.field == "source.folder"
    return refusal.value.message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors",
                                  "adapter_model.bin"])  # fmt: skip
def test_an_adapter_beside_the_weights_is_refused_by_name(folder, name):
    (folder / name).write_bytes(b"{}")
    message = refused(folder)
    assert name in message and "merge the adapter" in message


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "transformers_weights", "other.safetensors"),
        ("config.json", "attn_implementation", "somebody/kernel"),
        ("config.json", "_attn_implementation", "flash_attention_2"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.4.0.0.json"]),
    ],
)
def test_a_config_that_names_what_is_not_hashed_is_refused(folder, file, key, value):
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**told, key: value}))
    assert key in refused(folder)
    (folder / file).write_text(json.dumps({**told, "_attn_implementation": "sdpa"}))
    described(folder)


def test_files_that_are_not_part_of_the_identity_change_nothing(folder, tmp_path, one_torch_thread):
    alone = load_model(folder_reference(folder), tmp_path, "cpu", quiet)
    known = folder_reference(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    known["files"].pop("generation_config.json", None)
    (folder / "special_tokens_map.json").write_text('{"bos_token": "the"}')
    (folder / "added_tokens.json").write_text('{"the old": 3}')
    (folder / "chat_template.jinja").write_text("{{ nonsense")
    (folder / "model.safetensors.index.json").write_text("no index")
    (folder / "other.safetensors").write_bytes(save({"w": np.zeros(2)}))
    beside = load_model(known, tmp_path, "cpu", quiet)
    assert beside.eos_tokens == alone.eos_tokens == {2}
    assert beside.bos_token == alone.bos_token
    assert beside.encode("the old house") == alone.encode("the old house")


def test_what_a_library_says_of_bad_files_names_the_users_folder(folder, tmp_path):
    (folder / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(model_sources.TerminalFailure) as failure:
        load_model(folder_reference(folder), tmp_path, "cpu", quiet)
    assert str(folder) in str(failure.value) and "loopscope-model-" not in str(failure.value)


def test_a_gguf_file_is_converted_without_its_neighbours(tmp_path, monkeypatch):
    home = tmp_path / "downloads"
    home.mkdir()
    (home / "model.gguf").write_bytes(b"GGUF")
    for neighbour in ("adapter_config.json", "generation_config.json", "tokenizer_config.json"):
        (home / neighbour).write_text("{}")
    seen = []

    def convert(gguf, result, *_):
        seen.extend(path.name for path in gguf.parent.iterdir())
        assert gguf.read_bytes() == b"GGUF"
        (result / "config.json").write_text("{}")

    monkeypatch.setattr(model_sources, "convert_in_process", convert)
    files = {"model.gguf": model_sources.file_sha256(home / "model.gguf")}
    ref = {"name": "m", "dtype": "float32", "identity": "a" * 64, "files": files,
           "source": {"kind": "gguf", "path": str(home / "model.gguf")}}  # fmt: skip
    model_sources.local_model_folder(ref, tmp_path / "cache", quiet)
    assert seen == ["model.gguf"]


def test_a_conversion_says_how_far_it_is(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    seen = []

    def convert(gguf, result, dtype, still_wanted):
        still_wanted(60)
        (result / "config.json").write_text("{}")

    monkeypatch.setattr(model_sources, "convert_in_process", convert)
    files = {"model.gguf": model_sources.file_sha256(tmp_path / "model.gguf")}
    ref = {"name": "m", "dtype": "float32", "identity": "a" * 64, "files": files,
           "source": {"kind": "gguf", "path": str(tmp_path / "model.gguf")}}  # fmt: skip
    model_sources.local_model_folder(ref, tmp_path / "cache", lambda *report: seen.append(report))
    assert seen[0] == ("ConvertingModel", 0, 100, "percent")
    assert ("ConvertingModel", 60, 100, "percent") in seen
    assert seen[-1] == ("ConvertingModel", 100, 100, "percent")


def test_how_far_a_conversion_is_stands_beside_its_folder_and_may_be_half_written(tmp_path):
    folder = tmp_path / "model"
    assert conversion._percent_of(folder) == 0
    conversion._percent_file(folder).write_text("")
    assert conversion._percent_of(folder) == 0
    conversion._percent_file(folder).write_text("72")
    assert conversion._percent_of(folder) == 72
    assert not folder.exists()


def test_a_conversion_reads_the_header_once_however_often_the_library_asks(tmp_path, monkeypatch):
    import gguf

    monkeypatch.setattr(gguf, "GGUFReader", gguf.GGUFReader)  # replaced, and put back
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gemma3")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    conversion._read_headers_once()
    path = str(tmp_path / "m.gguf")
    assert gguf.GGUFReader(path) is gguf.GGUFReader(path)


def test_one_part_of_a_split_gguf_file_is_refused(tmp_path):
    part = tmp_path / "model-00001-of-00003.gguf"
    part.write_bytes(b"GGUF")
    with pytest.raises(InputRefused, match="one part of 3") as refusal:
        describe_model({"name": "m", "source": {"gguf": str(part)}})
    assert refusal.value.field == "source.gguf"


def test_a_gguf_file_that_lacks_tensors_is_not_filled_up_with_random_ones(tmp_path, monkeypatch):
    import gguf
    import transformers

    from loopscope.worker.conversion import convert

    def loaded(*_, **options):
        assert options["output_loading_info"]
        return object(), {"missing_keys": {"model.norm.weight"}}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loaded)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **options: None)
    monkeypatch.setattr(gguf, "GGUFReader", gguf.GGUFReader)  # replaced, and put back
    with pytest.raises(ValueError, match="lacks 1 tensors"):
        convert(tmp_path / "m.gguf", tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()
