"""Weights files that were made to cost memory, time or trust are refused by their headers."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from loopscope.inputs import gguf_header, headers
from loopscope.inputs.gguf_header import read_gguf_facts
from loopscope.inputs.headers import (
    SAFETENSORS_HEADER_BYTES_MAX,
    HeaderError,
    read_npz_headers,
    read_safetensors_header,
)


def tensor(*offsets, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE_SAFETENSORS = {
    "length 2^63": struct.pack("<Q", 2**63) + b"{}",
    "length beyond the file": struct.pack("<Q", 99) + b"{}",
    "overlapping": safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    "the same bytes twice": safetensors({"a": tensor(0, 8), "b": tensor(0, 8)}, bytes(8)),
    "a gap": safetensors({"a": tensor(0, 8), "b": tensor(12, 20)}, bytes(20)),
    "bytes of nobody": safetensors({"a": tensor(0, 8)}, bytes(9)),
    "a name twice": safetensors(
        b'{"a":%b,"a":%b}' % ((json.dumps(tensor(0, 8)).encode(),) * 2), bytes(8)
    ),
    "a negative side": safetensors({"a": tensor(0, 8, shape=(-2, -1))}, bytes(8)),
    "another type": safetensors({"a": tensor(0, 8, dtype="F64")}, bytes(8)),
    "an unknown type": safetensors({"a": tensor(0, 8, dtype="PY")}, bytes(8)),
    "a huge number": safetensors(b'{"a":{"shape":[%b]}}' % (b"9" * 5000)),
    "deep": safetensors(b"[" * 50_000),
    "NaN": safetensors({"a": tensor(0, float("nan"))}, bytes(8)),
}


@pytest.mark.parametrize("name", HOSTILE_SAFETENSORS)
def test_a_hostile_safetensors_header_is_refused(name):
    data = HOSTILE_SAFETENSORS[name]
    with pytest.raises(HeaderError):
        read_safetensors_header(io.BytesIO(data), len(data))


def test_a_header_of_100_megabytes_is_refused_before_it_is_read():
    class Unread(io.BytesIO):
        def read(self, size=-1):
            assert size == 8, "only the length is looked at"
            return super().read(size)

    length = SAFETENSORS_HEADER_BYTES_MAX + 1
    with pytest.raises(HeaderError, match="claims"):
        read_safetensors_header(Unread(struct.pack("<Q", length)), 10 * length)


def npz(*members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npy(header=None, count=4):
    stream = io.BytesIO()
    np.save(stream, np.zeros(count, np.float32))
    data = stream.getvalue()
    if header is None:
        return data
    return data[:8] + struct.pack("<H", len(header)) + header + bytes(4 * count)


def corrupted(data, place, value):
    changed = bytearray(data)
    changed[place] = value
    return bytes(changed)


HOSTILE_NPZ = {
    "bad deflate": lambda: corrupted(npz(("a.npy", npy())), 40, 0xFF),
    "lzma": lambda: npz(("a.npy", npy()), compression=zipfile.ZIP_LZMA),
    "bzip2": lambda: npz(("a.npy", npy()), compression=zipfile.ZIP_BZIP2),
    "a literal without an end": lambda: npz(("a.npy", npy(b"{'descr': (((")),),
    "a deep literal": lambda: npz(("a.npy", npy(b"(" * 9000)),),
    "code": lambda: npz(("a.npy", npy(b"__import__('os').abort()")),),
    "not an archive": lambda: b"PK\5\6" + b"\xff" * 18,
    "an early central directory": lambda: npz(("a.npy", npy()))[50:],
    "too many members": lambda: npz(*((f"{n}.npy", npy()) for n in range(100))),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NPZ)
def test_a_hostile_npz_is_refused(name):
    with pytest.raises(HeaderError):
        read_npz_headers(io.BytesIO(HOSTILE_NPZ[name]()))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_given_twice_is_refused():
    with pytest.raises(HeaderError, match="same name"):
        read_npz_headers(io.BytesIO(npz(("a.npy", npy()), ("a.npy", npy()))))


def test_an_archive_that_would_unpack_to_far_more_than_its_size_is_refused(monkeypatch):
    monkeypatch.setattr(headers, "NPZ_EXPANSION_FREE_BYTES", 1_000_000)
    bomb = npz(("w_enc.npy", npy(count=4_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(HeaderError, match="does not hold 16000128 bytes"):
        read_npz_headers(io.BytesIO(bomb))
    stored = npz(("w_enc.npy", npy(count=4_000_000)), compression=zipfile.ZIP_STORED)
    assert read_npz_headers(io.BytesIO(stored))["w_enc"].shape == (4_000_000,)


def gguf_text(value):
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("keys", "body"),
    [
        (2**64 - 1, b""),
        (1, struct.pack("<Q", 2**63)),
        (1, gguf_text(b"a") + struct.pack("<IIQ", 9, 8, 2**63)),
        (1, gguf_text(b"a") + struct.pack("<IIQ", 9, 6, 16 * 2**20)),
        (1, gguf_text(b"a") + struct.pack("<IIQ", 9, 9, 1)),
        (1, gguf_text(b"a") + struct.pack("<I", 99)),
    ],
)
def test_a_gguf_header_with_absurd_counts_is_refused(keys, body):
    data = struct.pack("<4sIQQ", b"GGUF", 3, 2**64 - 1, keys) + body
    with pytest.raises(HeaderError):
        read_gguf_facts(io.BytesIO(data))


def test_a_vocabulary_of_empty_words_ends_with_the_budget_of_its_header(monkeypatch):
    monkeypatch.setattr(gguf_header, "HEADER_BYTES_MAX", 1000)
    words = gguf_text(b"a") + struct.pack("<IIQ", 9, 8, 200) + bytes(8 * 200)
    data = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + words
    with pytest.raises(HeaderError, match="beyond the GGUF header's end"):
        read_gguf_facts(io.BytesIO(data))
