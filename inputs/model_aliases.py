"""TransformerLens' short names of models, read from the package without importing it."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

FILE_BYTES_MAX = 8 * 2**20


def names_of(model: str) -> tuple[str, ...]:
    """Return every name of a model that TransformerLens knows under ``model``, that one first."""
    same = {model, *_aliases().get(model.lower(), ())}
    return (model, *sorted(same - {model}))


@lru_cache(maxsize=1)
def _aliases() -> dict[str, frozenset[str]]:
    # Finding a top-level package runs none of its code.
    spec = importlib.util.find_spec("transformer_lens")
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / "supported_models.py" if places else None
    if path is None or not path.is_file():
        return {}
    with path.open(encoding="utf-8") as stream:
        table = _table(stream.read(FILE_BYTES_MAX))
    known: dict[str, frozenset[str]] = {}
    for official, short in table.items():
        names = frozenset((official, *short))
        known |= {name.lower(): names for name in names}
    return known


def _table(text: str) -> dict[str, list[str]]:
    """Return the literal ``MODEL_ALIASES``; empty where another version holds no such thing."""
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == _NAME:
                value = ast.literal_eval(statement.value) if statement.value else {}
                return {str(key): list(map(str, names)) for key, names in value.items()}
    except (SyntaxError, ValueError, TypeError, AttributeError):
        pass
    return {}


_NAME = "MODEL_ALIASES"
