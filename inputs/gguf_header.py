"""Facts from the header of a GGUF file, read without mapping the file.

A package may ship the file in parts; the header lies in the first one. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from loopscope.inputs.headers import HeaderError, refuse_pointer

HEADER_BYTES_MAX = 32 * 2**20
"""Three times the largest vocabularies; at eight bytes a text, four million steps at most."""
KEYS_MAX = 10_000
STRING_BYTES_MAX = 2**20
ARRAY_ITEMS_MAX = 16 * 2**20

_UNSIGNED, _STRING, _ARRAY = {0: "<B", 2: "<H", 4: "<I", 10: "<Q"}, 8, 9
_TYPE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UNQUANTISED = {0: "F32", 1: "F16", 32: "BF16"}
# llama.cpp's enum llama_ftype
_QUANTISED = {
    2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS",
    24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M",
}  # fmt: skip

_VOCABULARY = "tokenizer.ggml.tokens"


@dataclass(frozen=True)
class _Array:
    """An array that was passed over: how many items it has."""

    length: int


Values = dict[str, str | int | _Array]
"""The metadata of a header, as far as it is texts, whole numbers and arrays."""


@dataclass(frozen=True)
class GgufFacts:
    """The facts about a model in a GGUF header.

    ``quantised`` names the file type (``Q4_K_M``), or is None for a file of plain floats.
    ``block_weights`` (in the matrices of one block) and ``vocabulary`` (words) are None where the
    part of the header that is read does not tell.
    """

    architecture: str
    d_model: int
    n_layers: int | None
    quantised: str | None
    block_weights: int | None = None
    vocabulary: int | None = None


def read_gguf_facts(stream: BinaryIO) -> GgufFacts:
    """Return the facts of the GGUF file that starts at ``stream``; ``HeaderError`` if bad.

    Reads keys only as far as needed: some files have the last of them behind the vocabulary.
    """
    refuse_pointer(stream)
    values = _metadata(_Cursor(stream), _enough)
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str):
        raise HeaderError("the GGUF header names no architecture")
    d_model = values.get(f"{architecture}.embedding_length")
    n_layers = values.get(f"{architecture}.block_count")
    if not isinstance(d_model, int):
        raise HeaderError("the GGUF header names no embedding length")
    return GgufFacts(
        architecture,
        d_model,
        n_layers if isinstance(n_layers, int) else None,
        _file_type(values.get("general.file_type")),
        _block_weights(values, architecture, d_model),
        _number(values, f"{architecture}.vocab_size") or _length(values, _VOCABULARY),
    )


def _block_weights(values: Values, architecture: str, d_model: int) -> int | None:
    """Return the weights of a gated MLP and of attention; mixtures of experts are not reckoned."""
    heads = _number(values, f"{architecture}.attention.head_count")
    d_mlp = _number(values, f"{architecture}.feed_forward_length")
    if heads is None or d_mlp is None or f"{architecture}.expert_count" in values:
        return None
    d_head = _number(values, f"{architecture}.attention.key_length") or d_model // heads
    groups = _number(values, f"{architecture}.attention.head_count_kv") or heads
    return d_model * (2 * (heads + groups) * d_head + 3 * d_mlp)


def _number(values: Values, key: str) -> int | None:
    found = values.get(key)
    return found if isinstance(found, int) and found > 0 else None


def _length(values: Values, key: str) -> int | None:
    found = values.get(key)
    return found.length if isinstance(found, _Array) and found.length > 0 else None


def read_gguf_text(stream: BinaryIO, key: str) -> str | None:
    """Return the text under a key of a GGUF header, None without one; ``HeaderError`` if bad."""
    refuse_pointer(stream)
    found = _metadata(_Cursor(stream), lambda values: key in values).get(key)
    return found if isinstance(found, str) else None


def _file_type(number: str | int | _Array | None) -> str | None:
    if not isinstance(number, int):
        return "unknown quantisation"
    if number in _UNQUANTISED:
        return None
    return _QUANTISED.get(number, f"GGUF file type {number}")


class _Cursor:
    """Reads forward, never beyond ``HEADER_BYTES_MAX``."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = HEADER_BYTES_MAX

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise HeaderError(f"the GGUF header is longer than {HEADER_BYTES_MAX} bytes")
        self._left -= count
        content = self._stream.read(count)
        if len(content) != count:
            raise HeaderError("the file ends within its GGUF header")
        return content

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        length = self.number("<Q")
        if length > STRING_BYTES_MAX:
            raise HeaderError(f"the GGUF header holds a text of {length} bytes")
        return self.take(length).decode(errors="replace")

    def skip_texts(self, count: int) -> None:
        """Pass over a vocabulary; a plain loop, for it may hold a quarter million words."""
        read, unpack = self._stream.read, struct.Struct("<Q").unpack
        for _ in range(count):
            prefix = read(8)
            length = unpack(prefix)[0] if len(prefix) == 8 else 0
            self._left -= 8 + length
            if self._left < 0 or len(prefix) != 8 or len(read(length)) != length:
                raise HeaderError("the vocabulary reaches beyond the GGUF header's end")


def _metadata(cursor: _Cursor, enough: Callable[[Values], bool]) -> Values:
    if cursor.take(4) != b"GGUF":
        raise HeaderError("not a GGUF file: it does not start with the letters GGUF")
    version = cursor.number("<I")
    if version not in (2, 3):
        raise HeaderError(f"GGUF version {version}, expected 2 or 3")
    cursor.number("<Q")  # number of tensors
    count = cursor.number("<Q")
    if count > KEYS_MAX:
        raise HeaderError(f"the GGUF header claims {count} keys, at most {KEYS_MAX} are read")
    values: Values = {}
    for _ in range(count):
        key = cursor.text()
        value = _value(cursor)
        if value is not None:
            values[key] = value
        if enough(values):
            break
    return values


def _enough(values: Values) -> bool:
    architecture = values.get("general.architecture")
    wanted = (
        "general.file_type",
        f"{architecture}.embedding_length",
        f"{architecture}.block_count",
    )
    counted = _VOCABULARY in values or f"{architecture}.vocab_size" in values
    return counted and all(key in values for key in wanted)


def _value(cursor: _Cursor) -> str | int | _Array | None:
    """Return a text, an unsigned number or an array without its items; skip any other value."""
    kind = cursor.number("<I")
    if kind in _UNSIGNED:
        return cursor.number(_UNSIGNED[kind])
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _skip_array(cursor)
    if kind in _TYPE_BYTES:
        cursor.take(_TYPE_BYTES[kind])
    else:
        raise HeaderError(f"the GGUF header holds a value of unknown type {kind}")
    return None


def _skip_array(cursor: _Cursor) -> _Array:
    kind, length = cursor.number("<I"), cursor.number("<Q")
    if length > ARRAY_ITEMS_MAX:
        raise HeaderError(f"the GGUF header holds an array of {length} items")
    if kind == _STRING:
        cursor.skip_texts(length)
    elif kind in _TYPE_BYTES:
        cursor.take(_TYPE_BYTES[kind] * length)
    else:
        raise HeaderError(f"the GGUF header holds an array of unknown type {kind}")
    return _Array(length)
