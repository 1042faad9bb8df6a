"""``replicate study/NAME``: every concept of a study over an axis, and the study's answer again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopscope.context import CommandError, now
from loopscope.terminal.columns import show

if TYPE_CHECKING:
    from loopscope.specs.keys import Key
    from loopscope.specs.replication import AxisKind
    from loopscope.state.folder import StateFolder


def stored_concepts(
    state: StateFolder, study: Key, axis: AxisKind, given: Sequence[str]
) -> list[Key]:
    """Store the sweep of each concept over an axis, as far as the concepts are there.

    Raises CommandError where the study, or a concept's experiment, is missing.
    """
    from loopscope.controller.plan.replicating import store_sweep
    from loopscope.specs.study import concept_experiments
    from loopscope.state.db import objects

    with state.database.read() as connection:
        record = objects.get(connection, study)
        if record is None:
            raise CommandError(f"no study named {study.name!r} in namespace {study.namespace!r}", 1)
        names = [f"{study.name}-{one.name}" for one in concept_experiments(record.spec)]
        keys = [study._replace(kind="Experiment", name=name) for name in names]
        experiments = [objects.get(connection, key) for key in keys]
    missing = [key.name for key, one in zip(keys, experiments, strict=True) if one is None]
    if missing:
        raise CommandError(
            f"{len(missing)} of {len(keys)} concepts have no experiment yet ({missing[0]} …); run "
            f"the study first"
        )
    try:
        return [store_sweep(state, one, axis, given, now()) for one in experiments if one]
    except ValueError as error:
        raise CommandError(f"--axis {error}") from None


def show_study(
    state: StateFolder, study: Key, axes: Sequence[AxisKind], output: str | None
) -> bool:
    """Print what the study answers at each value of the axes; return whether its word is all's."""
    from loopscope.reports.text_table import TextTable
    from loopscope.views.replication.studies import (
        load_study_again,
        share_rows,
        study_again_document,
    )

    with state.database.read() as connection:
        found = [load_study_again(connection, study, axis) for axis in axes]
    if output == "json":
        print(json.dumps([study_again_document(one) for one in found], indent=2))
        return all(one.holds for one in found)
    for one in found:
        for head, *rows in (one.rows(), share_rows(list(one.shares()))):
            show(TextTable([name.upper() for name in head], [list(row) for row in rows]))
            print()
    return all(one.holds for one in found)
