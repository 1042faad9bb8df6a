"""Results as pandas tables: the way into a state folder for notebooks and scripts.

Everything is read, nothing is written, and no torch is imported. Tables have the columns that
``docs/artifacts.md`` names, and in their ``attrs`` where they come from and the columns' units;
pandas writes these to Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

import pandas

from loopscope.notebook_experiment import Experiment
from loopscope.specs.keys import Key
from loopscope.specs.pipeline import NODE_NAMES
from loopscope.specs.suggest import did_you_mean
from loopscope.state.db import objects
from loopscope.state.read_only import looking_at
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import testable
from loopscope.views.present import present
from loopscope.views.replication.axes import load_replicated, replicated_table
from loopscope.views.stages import by_owner, stage_word
from loopscope.views.sweeps import sweep_of
from loopscope.views.together import verdicts_together

_OVERVIEW = ("gate", "verdict", "contrast", "estimate", "low", "high", "n")
"""The keys of an Experiment's summary that make columns of the overview."""


class State:
    """A state folder. It is read anew at each question."""

    def __init__(self, path: str | os.PathLike[str], namespace: str = "default") -> None:
        self.path = Path(path).resolve()
        self.namespace = namespace
        with looking_at(self.path):
            pass  # so that a wrong folder is reported here

    @property
    def experiments(self) -> Experiments:
        """The experiments of the namespace, by name."""
        return Experiments(self)

    def __repr__(self) -> str:
        return f"<Loopscope state {self.path}, namespace {self.namespace}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.experiments._repr_html_()}"


class Experiments(Mapping[str, "Experiment"]):
    """The experiments of a namespace: a mapping from names, and a table of all."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Experiment:
        key = Key("Experiment", self._state.namespace, name)
        with looking_at(self._state.path) as folder, folder.database.read() as connection:
            record = next(iter(present(connection, objects.get_all(connection, [key]))), None)
        if record is None:
            hint = did_you_mean(name, self) if len(self) else "; there are none"
            raise KeyError(f"no experiment {name!r} in namespace {key.namespace}{hint}")
        return Experiment(self._state.path, record)

    def __iter__(self) -> Iterator[str]:
        return iter([record.key.name for record, _ in self._records()])

    def __len__(self) -> int:
        return len(self._records())

    def __repr__(self) -> str:
        return f"<experiments: {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(na_rep="", float_format=lambda value: f"{value:.3g}"))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def sweep(self, name: str) -> pandas.DataFrame:
        """Return one row a cell of a sweep: its axes as columns, then those of ``table``.

        Also ``state`` (``Ready``, or the reason why not), the gate's ``percentile``, and the
        verdict ``corrected`` over the whole sweep with its ``p``. A cell that does not exist yet
        has a row. ``_axis`` stands behind the name of an axis that another column has, too. Raises
        KeyError for an experiment that is no sweep.
        """
        records = {record.key.name: (record, owned) for record, owned in self._records()}
        if name not in records or "matrix" not in records[name][0].spec:
            sweeps = [one for one, (record, _) in records.items() if "matrix" in record.spec]
            hint = did_you_mean(name, sweeps) if sweeps else "; there are none"
            raise KeyError(f"no sweep {name!r}{hint}")
        record, owned = records[name]
        grid = sweep_of(record, [one for one in owned if one.key.kind == "Experiment"])
        index = pandas.Index([cell.name for cell in grid.cells], name="name")
        found = self.table().reindex(index)
        found["ready"] = [cell.state == "Ready" for cell in grid.cells]
        found["state"] = [cell.state for cell in grid.cells]
        found["percentile"] = [cell.percentile for cell in grid.cells]
        found["corrected"] = [cell.row.corrected or None for cell in grid.cells]
        found["p"] = [cell.row.p for cell in grid.cells]
        for place, axis in enumerate(grid.axes):
            title = f"{axis.name}_axis" if axis.name in found else axis.name
            found.insert(place, title, [cell.values[place] for cell in grid.cells])
        return found

    def table(self) -> pandas.DataFrame:
        """Return one row an experiment: ready, a word a stage, gate, and the verdict's numbers."""
        rows = []
        for record, children in self._records():
            prefix = f"{record.key.name}-"
            stages = {child.key.name.removeprefix(prefix): child for child in children}
            row: dict[str, object] = {"name": record.key.name, "ready": record.ready}
            row |= {stage: stage_word(stages[stage]) for stage in NODE_NAMES if stage in stages}
            summary = testable(record.status.summary) if record.ready else {}
            row |= {name: summary.get(name) for name in _OVERVIEW}
            rows.append(row)
        columns = ["name", "ready", *NODE_NAMES, *_OVERVIEW]
        return pandas.DataFrame(rows, columns=columns).set_index("name")

    def replicated(self, name: str) -> pandas.DataFrame:
        """Return one row a value of each axis along which an experiment was replicated.

        Raises KeyError for an experiment that does not exist.
        """
        with looking_at(self._state.path) as folder:
            key = Key("Experiment", self._state.namespace, name)
            return replicated_table(load_replicated(folder, key))

    def together(self, names: Iterable[str] | None = None) -> pandas.DataFrame:
        """Return the verdicts of several experiments, corrected together (Holm), one row each.

        ``verdict`` is each one's own word, ``corrected`` the word that survives the correction,
        ``p`` its p after it. A sweep stands for its cells; without ``names`` all
        experiments count. The last row, ``pooled``, has one contrast of the mean over cells:
        the smaller. Raises LookupError for fewer than two with a steering part.
        """
        records = {record.key.name: (record, owned) for record, owned in self._records()}
        wanted = list(records) if names is None else list(names)
        for name in wanted:
            if name not in records:
                raise KeyError(f"no experiment {name!r}{did_you_mean(name, list(records))}")
        asked: dict[str, ObjectRecord] = {}
        for name in wanted:
            record, owned = records[name]
            cells = owned if "matrix" in record.spec else [record]
            asked |= {cell.key.name: cell for cell in cells}
        return verdicts_together(list(asked.values()))

    def _records(self) -> list[tuple[ObjectRecord, list[ObjectRecord]]]:
        namespace = self._state.namespace
        with looking_at(self._state.path) as folder, folder.database.read() as connection:
            everything = present(connection, objects.listed(connection, namespace=namespace))
        owned = by_owner(everything)
        found = [record for record in everything if record.key.kind == "Experiment"]
        return [(record, owned.get(record.uid, [])) for record in found]
