"""Two captures of the same prompts, and what parted them: tokens, place, weights, precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas

from loopscope.numerics.replication.rows import Floats, RowRelation, row_relation
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS, RESIDUAL
from loopscope.specs.hooks import Hook
from loopscope.views.numbers import counted
from loopscope.views.replication.run import StageRun
from loopscope.views.replication.step import Cause, Step, step_of

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "spiece.model", "special_tokens_map.json")


def capture_step(first: StageRun, second: StageRun, others: Iterable[StageRun] = ()) -> Step:
    """Return how two captures differ. ``others`` are captures that may show a neighbouring place.

    Raises Corrupt.
    """
    tables = [run.table(CAPTURED_PROMPTS) for run in (first, second)]
    residuals = [run.tensors(RESIDUAL.name) for run in (first, second)]
    if tables[0] is None or tables[1] is None or None in residuals:
        return step_of("capture", first, second, "missing", "its rows are not there")
    one, two = (pandas.DataFrame(table) for table in tables)
    if one["text"].tolist() != two["text"].tolist():
        shared = len(set(one["text"]) & set(two["text"]))
        words = f"{shared} of {len(one)} prompts are shared"
        return step_of("capture", first, second, "different", words, [Cause("prompts", words)])
    causes = [*_files(first.inputs, second.inputs), *_tokens(one, two, first, second)]
    left, right = ((r or {})["residual"].astype(np.float64) for r in residuals)
    if left.shape != right.shape:
        words = f"rows of shapes {left.shape} and {right.shape}"
        return step_of("capture", first, second, "different", words, causes)
    relation = row_relation(left, right)
    if relation.word == "same":
        words = f"rows differ by at most {relation.largest:.1g} of their length"
        return step_of("capture", first, second, "same numbers", words, causes)
    same_texts = (other for other in others if _texts(other) == one["text"].tolist())
    causes += _places(first, second, left, right, same_texts)
    causes += _weights(relation, first, second)
    words = (
        f"{counted(int(relation.differing.sum()), 'row')} of {len(left)} differ, by up to "
        f"{relation.largest:.2g} of their length"
    )
    return step_of("capture", first, second, "different", words, causes)


def _files(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield the model's files that are not the same, those of the tokenizer apart."""
    one, two = (dict(given.get("model", {}).get("files", {})) for given in (first, second))
    if not one or not two:
        return
    changed = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
    tokenizer = [name for name in changed if is_of_tokenizer(name)]
    others = [name for name in changed if name not in tokenizer]
    if tokenizer:
        beside = "" if others else ", all other files of the model are the same"
        yield Cause("tokenizer", f"{', '.join(tokenizer)} of another revision{beside}")
    if others:
        yield Cause("model", f"other bytes in {', '.join(others)}")


def is_of_tokenizer(name: str) -> bool:
    """Whether a file of a model's folder says how text becomes tokens."""
    return "token" in name or name in _TOKENIZER_FILES


def _tokens(
    one: pandas.DataFrame, two: pandas.DataFrame, first: StageRun, second: StageRun
) -> Iterator[Cause]:
    """Yield what changed about tokens: one more before each prompt, or others in some."""
    more = (two["n_tokens"] - one["n_tokens"]).to_numpy()
    other_ends = (one["last_token"] != two["last_token"]).to_numpy()
    if not more.any() and not other_ends.any():
        return
    same_file = not any(cause.name == "tokenizer" for cause in _files(first.inputs, second.inputs))
    if same_file and abs(int(more[0])) == 1 and (more == more[0]).all() and not other_ends.any():
        which = "second" if more[0] > 0 else "first"
        yield Cause(
            "double BOS",
            f"each of {len(one)} prompts has exactly one token more in the {which} run, behind "
            "BOS, and ends with the same one: BOS was put before them twice",
        )
        return
    changed = int(((more != 0) | other_ends).sum())
    yield Cause(
        "tokenizer",
        f"{changed} of {len(one)} prompts have other tokens (for example "
        f"{one['text'][int(np.flatnonzero((more != 0) | other_ends)[0])]!r})",
    )


def _places(
    first: StageRun,
    second: StageRun,
    left: Floats,
    right: Floats,
    others: Iterable[StageRun],
) -> Iterator[Cause]:
    """Yield the place that the rows of one are of, where it is not the one that is declared."""
    hooks = [str(run.inputs.get("hook", "")) for run in (first, second)]
    if hooks[0] != hooks[1]:
        yield Cause("hook", f"{hooks[0]} and {hooks[1]} are declared")
        return
    for other in others:
        hook = str(other.inputs.get("hook", ""))
        found = other.tensors(RESIDUAL.name)
        if hook == hooks[0] or found is None:
            continue
        rows = found["residual"].astype(np.float64)
        for name, own in (("second", right), ("first", left)):
            if own.shape == rows.shape and row_relation(rows, own).word == "same":
                yield Cause(
                    "neighbouring hook" if _is_near(hooks[0], hook) else "hook",
                    f"the {name} run declares {hooks[0]}, and its rows are those of {hook}",
                )
                return


def _texts(run: StageRun) -> list[str]:
    table = run.table(CAPTURED_PROMPTS)
    return [] if table is None else [str(text) for text in table["text"]]


def _is_near(one: str, other: str) -> bool:
    try:
        blocks = [Hook.parse(name).block for name in (one, other)]
    except ValueError:
        return False
    return abs(blocks[0] - blocks[1]) <= 1


def _weights(relation: RowRelation, first: StageRun, second: StageRun) -> Iterator[Cause]:
    """Yield what was done to the weights, or in which precision they were used."""
    dtypes = [str(run.inputs.get("model", {}).get("dtype", "")) for run in (first, second)]
    if relation.word == "centred":
        yield Cause(
            "folded weights",
            "each row is that of the other run without its mean over the width: the weights that "
            "write into the stream were centred when they were folded",
        )
    elif relation.word == "scaled":
        yield Cause("scale", f"the rows are those of the first run times {relation.scale:.6g}")
    elif relation.word == "shifted":
        yield Cause("shift", "the rows differ by one vector, the same for all prompts")
    elif dtypes[0] != dtypes[1]:
        yield Cause("precision", f"{dtypes[0]} and {dtypes[1]}")
    elif relation.word == "rounded" and first.made_with != second.made_with:
        yield Cause("machine", f"made with {first.made_with}, and with {second.made_with}")
