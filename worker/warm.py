"""Models and dictionaries kept in memory between jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loopscope.specs.payloads.references import DictionaryReference, ModelReference
from loopscope.worker.progress import ProgressReport

if TYPE_CHECKING:
    from loopscope.numerics.dictionaries.sparse import SparseDictionary
    from loopscope.worker.models import LoadedModel

DICTIONARIES_MAX = 4


@dataclass
class WarmInputs:
    """The last model and the last few dictionaries, by identity."""

    _model: tuple[str, LoadedModel] | None = None
    _dictionaries: dict[str, SparseDictionary] = field(default_factory=dict)

    def model(self, ref: ModelReference, device: str, progress: ProgressReport) -> LoadedModel:
        """Return the model of a reference, loading it if it is not the one in memory."""
        if self._model is None or self._model[0] != ref["identity"]:
            from loopscope.inputs.files import default_cache
            from loopscope.worker.models import load_model

            self._model = None  # release the old weights before loading new ones
            progress("LoadingModel", 0, 100, "percent")
            self._model = (ref["identity"], load_model(ref, default_cache(), device, progress))
        return self._model[1]

    def dictionary(self, ref: DictionaryReference) -> SparseDictionary:
        """Return the dictionary of a reference, loading it if it is not in memory."""
        if ref["identity"] not in self._dictionaries:
            from loopscope.worker.dictionaries import load_dictionary

            if len(self._dictionaries) >= DICTIONARIES_MAX:
                self._dictionaries.pop(next(iter(self._dictionaries)))
            self._dictionaries[ref["identity"]] = load_dictionary(ref)
        return self._dictionaries[ref["identity"]]
