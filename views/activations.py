"""Prompt activations of a decomposition, read without torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import scipy.sparse
from numpy.typing import NDArray

from loopscope.state.artifacts.store import Corrupt
from loopscope.views.tensors import read_tensors

Floats = NDArray[np.float32]
SHOWN = 10
"""Latents in the table that a notebook shows of activations."""


def prompt_activations(path: Path, latents: Iterable[int]) -> dict[int, Floats]:
    """Return the activations [prompts] of some latents from ``activations.safetensors``.

    Silent prompts are 0. Raises Corrupt when the file does not hold the sparse matrix that
    ``specs/artifacts/decomposition.py`` describes.
    """
    try:
        tensors = read_tensors(path)
        indptr, indices, values = (tensors[name] for name in ("indptr", "indices", "values"))
        prompts = int(tensors["shape"][0])
        row = np.repeat(np.arange(prompts), np.diff(indptr))
        found: dict[int, Floats] = {}
        for latent in latents:
            here = indices == latent
            found[latent] = np.zeros(prompts, dtype=np.float32)
            found[latent][row[here]] = values[here]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None
    return found


def sparse_activations(path: Path) -> scipy.sparse.csr_array:
    """Return all activations [prompts, latents] of ``activations.safetensors`` as float32.

    What is not stored is 0. Raises Corrupt as ``prompt_activations`` does.
    """
    try:
        tensors = read_tensors(path)
        shape = tuple(int(size) for size in tensors["shape"])
        parts = (tensors["values"], tensors["indices"], tensors["indptr"])
        return scipy.sparse.csr_array(parts, shape=shape)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True)
class PromptActivations:
    """The activations of one dictionary: ``matrix`` [prompts, latents], silent prompts 0.

    Row *i* is row *i* of ``prompts`` (``prompts.parquet``). ``origin`` goes with each table that is
    made of them, as its ``attrs``.
    """

    matrix: scipy.sparse.csr_array
    prompts: pandas.DataFrame
    origin: Mapping[str, Any] = field(default_factory=dict)

    def frame(self, latents: Iterable[int] | None = None) -> pandas.DataFrame:
        """Return latents as columns and prompts as rows, by ``prompt_id``; without ``latents`` all.

        The columns are sparse. Raises IndexError for a latent that the dictionary has not.
        """
        wanted = np.arange(self.matrix.shape[1]) if latents is None else self._known(latents)
        names = pandas.Index(self.prompts["prompt_id"], name="prompt_id")
        found = pandas.DataFrame.sparse.from_spmatrix(
            self.matrix[:, wanted], index=names, columns=pandas.Index(wanted, name="latent")
        )
        found.attrs = dict(self.origin)
        return found

    def data_array(self, latents: Iterable[int] | None = None) -> Any:
        """Return an ``xarray.DataArray`` with the axes ``prompt_id`` and ``latent``.

        The other columns of ``prompts`` are coordinates of its prompts. It is dense, so without
        ``latents`` it has those that fire on some prompt. Raises IndexError as ``frame`` does, and
        ImportError where xarray is not installed.
        """
        try:
            xarray = importlib.import_module("xarray")
        except ImportError:
            message = "data_array needs xarray: pip install 'loopscope[xarray]'"
            raise ImportError(message) from None
        wanted = np.unique(self.matrix.indices) if latents is None else self._known(latents)
        of_prompts = {name: ("prompt_id", column) for name, column in self._columns()}
        return xarray.DataArray(
            self.matrix[:, wanted].toarray(),
            dims=("prompt_id", "latent"),
            coords={**of_prompts, "latent": wanted},
            name="activation",
            attrs=dict(self.origin),
        )

    def top_prompts(self, latent: int, count: int = 10) -> pandas.DataFrame:
        """Return the prompts on which a latent fires most, strongest first, with ``activation``.

        Prompts on which it is silent are left out.
        """
        column = self.matrix[:, self._known([latent])].toarray()[:, 0]
        order = np.argsort(-column, kind="stable")[:count]
        order = order[column[order] > 0]
        found = self.prompts.iloc[order].copy()
        found.insert(0, "activation", column[order])
        found = found.reset_index(drop=True)
        found.attrs = dict(self.origin)
        return found

    def _columns(self) -> Iterable[tuple[str, NDArray[Any]]]:
        """Yield the columns of ``prompts`` as xarray keeps them: text as objects."""
        for name in self.prompts.columns:
            column = self.prompts[name]
            yield name, column.to_numpy(dtype=object if column.dtype.kind in "OT" else None)

    def _known(self, latents: Iterable[int]) -> NDArray[np.int64]:
        wanted = np.fromiter(latents, dtype=np.int64)
        size = self.matrix.shape[1]
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < size):
            raise IndexError(f"latents are 0 to {size - 1}; asked for {wanted.tolist()}")
        return wanted

    def __repr__(self) -> str:
        prompts, latents = self.matrix.shape
        return f"<activations: {prompts} prompts x {latents} latents, {self.matrix.nnz} not 0>"

    def _repr_html_(self) -> str:
        """Return the latents that fire on most prompts as a table."""
        fires = np.bincount(
            self.matrix.indices[self.matrix.data > 0], minlength=self.matrix.shape[1]
        )
        most = np.argsort(-fires, kind="stable")[:SHOWN]
        most = most[fires[most] > 0]
        largest = self.matrix[:, most].max(axis=0).toarray().ravel() if len(most) else []
        shown = pandas.DataFrame({"latent": most, "prompts": fires[most], "largest": largest})
        return f"<p>{escape(repr(self)[1:-1])}</p>{shown.to_html(index=False)}"
