"""References in payloads: a model, a dictionary, an artifact, and the checks that were passed."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from loopscope.specs.actions import Stage


class FolderPlace(TypedDict):
    """A folder on this machine, by its absolute path."""

    kind: Literal["folder"]
    path: str


class FilePlace(TypedDict):
    """One file on this machine, by its absolute path."""

    kind: Literal["file"]
    path: str


class GgufPlace(TypedDict):
    """A GGUF file on this machine; references of old versions carry its hash here."""

    kind: Literal["gguf"]
    path: str
    sha256: NotRequired[str]


class PackagePlace(TypedDict):
    """The GGUF file that a Python package ships, and its sha256."""

    kind: Literal["package"]
    package: str
    sha256: str


class HubPlace(TypedDict):
    """A repository of the hub at a commit."""

    kind: Literal["hub"]
    repo: str
    revision: str


class HubFolderPlace(HubPlace):
    """A folder in such a repository."""

    path: str


ModelPlace = PackagePlace | GgufPlace | FolderPlace | HubPlace
DictionaryPlace = FolderPlace | FilePlace | HubFolderPlace


class ModelReference(TypedDict):
    """A resolved model: ``files`` maps each name to its sha256.

    ``identity`` alone enters digests; the rest is the present way to the same bytes.
    ``bos_token`` begins plain text where the spec names one; it is part of the identity then. So is
    how weights are ``quantised`` while they are loaded; ``unquantised`` is the identity without.
    """

    name: str
    dtype: str
    identity: str
    source: ModelPlace
    files: dict[str, str]
    bos_token: NotRequired[str]
    quantised: NotRequired[str]
    unquantised: NotRequired[str]


class DictionaryReading(TypedDict, total=False):
    """Numbers beside the tensors of a layout whose config workers do not read; part of identity.

    ``k`` latents are active where an architecture chooses so many; ``threshold`` is that of every
    latent; the input is multiplied by ``input_scale`` before it is encoded, what the encoder reads
    of it by ``encoder_scale``. A dictionary that attends does so with ``heads``, and ``epsilon`` is
    added to the length of what it predicts.
    """

    k: int
    heads: int
    epsilon: float
    encoder_scale: float
    threshold: float
    input_scale: float
    apply_b_dec_to_input: bool


class DictionaryReference(TypedDict):
    """A resolved dictionary of ``d_sae`` latents that reads vectors of width ``d_in``.

    With a ``prefix`` it is as many latents, the first of those that are stored.
    """

    identity: str
    format: str
    source: DictionaryPlace
    files: dict[str, str]
    architecture: str
    d_in: int
    d_sae: int
    reading: NotRequired[DictionaryReading]
    prefix: NotRequired[int]


class UpstreamArtifact(TypedDict):
    """An artifact of the stage before: its action digest, and the digest of its content."""

    digest: str
    contentDigest: str


class NamedUpstreamArtifact(UpstreamArtifact):
    """The same with the name of the object that rests on it."""

    object: NotRequired[str]


class NeededArtifact(TypedDict):
    """A shared artifact, by what it is made from: it may not exist yet.

    Stage and revision show an upgrade that a finished artifact rests on older rules, also when the
    shared artifact is gone.
    """

    digest: str
    contentDigest: None
    stage: Stage
    codeRevision: int


class DecompositionReference(UpstreamArtifact):
    """A decomposition with the dictionary that it was made with."""

    dictionary: DictionaryReference


class PreflightNumbers(TypedDict):
    """A check that was passed: what was measured, and the range that was allowed."""

    measured: float
    low: float
    high: float


Preflights = dict[str, PreflightNumbers]
"""The checks of a stage by what each measured."""
