"""Pickled weights are read by a sealed child alone: tensors come out, and nothing else happens."""

from __future__ import annotations

import collections
import hashlib
import io
import json
import pickle
import socket
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.state.failures import TerminalFailure
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.mapped_weights import MappedFile
from loopscope.worker.sealed import child, protections
from loopscope.worker.sealed.conversion import converted
from tests.layouts import REPOSITORIES, drawn

TENSORS = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "k": torch.tensor(5)}


def checkpoint(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def convert(folder: Path, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "ae.pt"
    path.write_bytes(data)
    return converted(path, hashlib.sha256(data).hexdigest(), folder / "cache")


def kept(folder: Path) -> list[str]:
    found = (folder / "cache" / "loopscope" / "dictionaries").glob("**/*")
    return [path.name for path in found if path.is_file() and path.suffix != ".lock"]


class Planted:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """Return a file that the planted pickle makes, as was tried."""
    mark = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Planted(mark)))
    mark.unlink()
    return mark


def test_the_tensors_of_a_checkpoint_come_out_and_nothing_else(tmp_path):
    content = {**TENSORS, "w": torch.nn.Parameter(torch.ones(2, 2).T), "group_sizes": [1, 2],
               "half": torch.ones(3, dtype=torch.bfloat16), "name": "x"}  # fmt: skip
    found = load_file(convert(tmp_path, checkpoint(content)))
    assert found.keys() == {"encoder.weight", "k", "w", "half"}
    for name, tensor in found.items():
        assert torch.equal(tensor, content[name]) and tensor.dtype == content[name].dtype


@pytest.mark.parametrize("form", ["in torch's zip", "zipped by hand", "plain", "behind a tensor"])
def test_a_pickle_with_code_in_it_is_refused_and_runs_nothing(tmp_path, mark, form):
    data = {
        "in torch's zip": lambda: checkpoint({**TENSORS, "x": Planted(mark)}),
        "zipped by hand": lambda: zipped({"archive/data.pkl": pickle.dumps(Planted(mark))}),
        "plain": lambda: pickle.dumps({"x": Planted(mark)}),
        "behind a tensor": lambda: checkpoint([TENSORS["k"], Planted(mark)]),
    }[form]()
    with pytest.raises(TerminalFailure, match=r"UnsafeWeights: ae\.pt was not converted") as failed:
        convert(tmp_path, data)
    assert not mark.exists() and kept(tmp_path) == []
    assert len(failed.value.message) < 400 and "\n" not in failed.value.message


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zip format"),
        (b"PK\x03\x04 no archive", "zip format"),
        (zipped({"a/data.pkl": b"\x80\x02}."}, zipfile.ZIP_DEFLATED), "compressed"),
        (zipped({"a/data.pkl": b"\x80\x02}.", "a/code.pkl": b"."}), "not one checkpoint"),
        (
            zipped({"a/data.pkl": b"\x80\x02cposix\nsystem\n."}),
            "'posix system', which is no tensor",
        ),
        (zipped({"a/data.pkl": pickle.dumps(Path, 4)}), r"pathlib Path \(STACK_GLOBAL\)"),
        (zipped({"a/data.pkl": b"\xff"}), "damaged"),
        (checkpoint([1, 2]), "expected named tensors"),
        (checkpoint({"a": 1}), "holds 0 named tensors"),
        (checkpoint({"a": torch.ones(2, dtype=torch.complex64)}), "ComplexFloatStorage"),
        (checkpoint({"a": torch.eye(3).to_sparse()}), "no tensor"),
        (checkpoint({f"t{index}": torch.ones(1) for index in range(300)}), "1 to 256"),
    ],
)
def test_what_is_no_plain_checkpoint_of_tensors_is_refused_in_one_line(tmp_path, data, message):
    with pytest.raises(TerminalFailure, match=message) as failed:
        convert(tmp_path, data)
    assert failed.value.reason == "UnsafeWeights" and kept(tmp_path) == []


def test_a_listed_global_is_refused_where_another_opcode_than_pytorch_s_names_it(tmp_path):
    named = zipped({"a/data.pkl": pickle.dumps(collections.OrderedDict(), 4)})
    with pytest.raises(TerminalFailure, match=r"collections OrderedDict \(STACK_GLOBAL\)"):
        convert(tmp_path, named)


def test_a_conversion_is_used_again_and_made_again_when_it_was_damaged(tmp_path):
    data = checkpoint(TENSORS)
    made = convert(tmp_path, data)
    whole, source = made.read_bytes(), hashlib.sha256(data).hexdigest()
    record = json.loads((made.parent / "source.json").read_text())
    assert (record["source"], record["weights"]) == (source, hashlib.sha256(whole).hexdigest())
    gone = tmp_path / "gone.pt"
    assert converted(gone, source, tmp_path / "cache") == made  # nothing has to be read again
    made.write_bytes(whole[:-1])
    assert convert(tmp_path, data).read_bytes() == whole


def test_this_process_never_unpickles(tmp_path, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("the pickle was opened here")

    data = checkpoint(TENSORS)
    for module, name in (
        (pickle, "loads"),
        (pickle, "load"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, opened)
    assert load_file(convert(tmp_path, data)).keys() == TENSORS.keys()


DEEDS = """
import json, os, socket, subprocess, sys
from loopscope.worker.mapped_weights import MappedFile
from loopscope.worker.sealed import child, protections
port, folder, old = int(sys.argv[1]), sys.argv[2], sys.argv[3]
memory = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
held = protections.before_imports(memory + 2**28) + protections.before_reading()
def network():
    socket.create_connection(("127.0.0.1", port), timeout=5)
def make():
    os.close(os.open(folder + "/new", os.O_CREAT | os.O_WRONLY))
def remove():
    os.unlink(old)
def execute():
    subprocess.run(["/bin/true"], check=True)
def grow():
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.write(GROWING, b"x" * 10)
def memory():
    bytearray(2**30)
GROWING = int(sys.argv[4])
def manages(deed):
    try:
        deed()
    except (OSError, MemoryError):
        return False
    return True
done = {deed.__name__: manages(deed) for deed in (network, make, remove, execute, grow, memory)}
print(json.dumps([held, done]))
"""
PREVENTED = {
    "no-network": {"network"}, "no-writes": {"make", "remove", "execute"},
    "limits": {"memory"}, "no-growth": {"grow"}, "no-new-rights": set(),
}  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_each_protection_that_holds_prevents_what_it_says(tmp_path):
    old = tmp_path / "old"
    old.write_text("x")
    script = tmp_path / "deeds.py"
    script.write_text(textwrap.dedent(DEEDS))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        (tmp_path / "open").open("wb") as growing,
    ):
        words = [server.getsockname()[1], tmp_path, old, growing.fileno()]
        done = subprocess.run(
            [sys.executable, script, *map(str, words)],
            stdout=subprocess.PIPE, check=True, text=True, pass_fds=[growing.fileno()], timeout=120,
        )  # fmt: skip
    held, managed = json.loads(done.stdout)
    assert set(held) <= protections.NAMES.keys() == PREVENTED.keys()
    assert {"limits", "no-growth"} <= set(held)
    for name in held:
        assert not any(managed[deed] for deed in PREVENTED[name]), (name, managed)


def test_the_command_says_which_protections_hold(loopscope):
    code, table, _ = loopscope("dictionaries", "--protections")
    assert code == 0 and all(name in table for name in protections.NAMES)
    assert (
        next(line for line in table.splitlines() if line.startswith("limits")).split()[1] == "True"
    )


@pytest.mark.parametrize("name", ["b", "bi", "bia", "bias"])
def test_what_the_child_writes_can_be_mapped(tmp_path, name):
    with (tmp_path / "x").open("wb") as stream:
        child.write_safetensors({name: torch.randn(3, 5)}, stream)
    file = MappedFile.open(tmp_path / "x")
    assert file.holds(file.tensors[name])


def test_a_dictionary_is_loaded_through_the_child_and_code_in_its_place_runs_nowhere(
    tmp_path, monkeypatch, mark
):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "trainer_0"
    folder.mkdir()
    for name, data in REPOSITORIES["dictionary_learning_1"].published().items():
        (folder / name.split("/")[-1]).write_bytes(data)
    named = {"path": str(folder), "convert": "sealed"}
    dictionary = load_dictionary(describe_dictionary(named).ref)
    assert torch.equal(dictionary.w_enc, drawn()["w_enc"])
    assert set(kept(tmp_path)) == {"tensors.safetensors", "source.json"}
    (folder / "ae.pt").write_bytes(checkpoint({**TENSORS, "bias": Planted(mark)}))
    with pytest.raises(InputRefused, match=r"ae\.pt is no pickle of tensors alone: it names"):
        describe_dictionary(named)
    assert not mark.exists()
