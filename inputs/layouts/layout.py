"""The layout of one origin's dictionaries in files, as a table that both planes read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.payloads.references import DictionaryReading

SHOWN_CHARACTERS_MAX = 60


@dataclass(frozen=True)
class Entry:
    """One dictionary where it lies: the hub repository and the path there, as registered.

    Of a local folder ``repo`` and ``id`` are empty, and ``path`` is the folder's name.
    """

    repo: str
    path: str
    id: str = ""
    norm_scaling_factor: float | None = None


@dataclass(frozen=True)
class Known:
    """What an entry says before a file is opened; None where only the files say it."""

    architecture: str | None = None
    hook: str | None = None
    hook_out: str | None = None
    """Where a transcoder writes, in TransformerLens' grammar like ``hook``."""


@dataclass(frozen=True)
class Files:
    """The files of a dictionary, below one folder of its repository (empty: the root)."""

    folder: str
    configs: tuple[str, ...]
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """Where one tensor of a dictionary lies: its name in the files, and what is done to it.

    ``transposed`` swaps its two axes, ``summed`` sums over its second axis (the layers that a
    latent writes to), ``exponential`` takes its values' exponential. The name of a ``numbered`` one
    ends in the number of a layer.
    """

    name: str
    numbered: bool = False
    transposed: bool = False
    summed: bool = False
    exponential: bool = False

    def found_in(self, names: Iterable[str]) -> str | None:
        """Return which of the names of a file's tensors is this one, or None."""
        pattern = re.escape(self.name) + (r"_\d+" if self.numbered else "")
        return next((name for name in names if re.fullmatch(pattern, name)), None)

    def shape_of(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a stored one has as ours."""
        if self.summed and len(stored) == 3:
            stored = (stored[0], stored[2])
        return stored[::-1] if self.transposed else stored


@dataclass(frozen=True)
class Reading:
    """What the config of a dictionary means for the weights beside it.

    ``numbers`` go into the reference and into its identity. ``said`` is what is recorded of its
    training, under the names of a ``cfg.json``. Widths are None where the tensors tell them;
    ``d_attn`` is that of queries, where a dictionary attends.
    """

    architecture: str
    numbers: DictionaryReading = field(default_factory=DictionaryReading)
    said: JsonObject = field(default_factory=dict)
    d_in: int | None = None
    d_sae: int | None = None
    d_attn: int | None = None


@dataclass(frozen=True)
class Contents:
    """What files of another layout than SAELens' own hold.

    ``read`` raises ``ValueError`` that names what is unsupported, and finds no config that is
    ``optional`` and not there. ``tensors`` says of each of our
    tensors where it may lie, the first that is there counts; ``absent_is_zero`` are those that
    may be missing. ``ignored`` names tensors without an effect on what is encoded. Weights that
    are ``pickled`` are unpickled by a sealed child alone, and their config says the widths.
    """

    read: Callable[[Mapping[str, JsonObject], Entry], Reading]
    tensors: Mapping[str, tuple[Stored, ...]]
    absent_is_zero: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    pickled: bool = False
    optional: frozenset[str] = frozenset()

    def places(
        self, wanted: Iterable[str], names: Collection[str]
    ) -> dict[str, tuple[str, Stored]]:
        """Return of each wanted tensor that is among the files' tensors its name there, and how."""
        found: dict[str, tuple[str, Stored]] = {}
        for tensor in wanted:
            for stored in self.tensors.get(tensor, ()):
                if (name := stored.found_in(names)) is not None:
                    found.setdefault(tensor, (name, stored))
        return found


@dataclass(frozen=True)
class Layout:
    """The layout of one origin.

    ``format`` is its name in references, ``loader`` SAELens' conversion. ``contents`` is None for
    SAELens' own folders and Gemma Scope, of which ``loopscope.inputs.dictionaries`` knows more.
    """

    format: str
    loader: str
    files: Callable[[Entry], Files]
    known: Callable[[Entry], Known]
    contents: Contents | None = None
    applies: Callable[[Entry], bool] | None = None
    """Which dictionaries of its loader have it; without it those that no other layout has."""
    by_files: bool = False
    """Whether a folder that has these files has this layout, whatever its name is."""

    @property
    def pickled(self) -> bool:
        """Whether its weights can only be unpickled."""
        return self.contents is not None and self.contents.pickled


LINEAR: Mapping[str, tuple[Stored, ...]] = {
    "w_enc": (Stored("encoder.weight", transposed=True),),
    "w_dec": (Stored("decoder.weight", transposed=True),),
    "b_enc": (Stored("encoder.bias"),),
    "b_dec": (Stored("decoder.bias"),),
}
"""The tensors of an encoder and a decoder that are PyTorch's ``Linear``."""


def whole(value: Json, name: str) -> int:
    """Return a positive whole number of a config. Raises ``ValueError``."""
    if type(value) is not int or value <= 0:
        raise ValueError(f"expected {name} to be a positive whole number, found {shown(value)}")
    return value


def positive(value: Json, name: str) -> float:
    """Return a positive number of a config. Raises ``ValueError``."""
    if isinstance(value, (int, float)) and type(value) is not bool and 0 < value < float("inf"):
        return float(value)
    raise ValueError(f"expected {name} to be a positive number, found {shown(value)}")


def section(config: Mapping[str, Json], name: str) -> JsonObject:
    """Return an object within a config. Raises ``ValueError``."""
    value = config.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} to be an object, found {shown(value)}")
    return value


def shown(value: Json) -> str:
    """Return a value of a config as a message shows it."""
    return repr(value)[:SHOWN_CHARACTERS_MAX]
