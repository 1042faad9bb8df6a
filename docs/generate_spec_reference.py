"""Write ``docs/spec.md`` from the spec models: ``python docs/generate_spec_reference.py``.

All facts come from ``loopscope.specs.reference``. A test compares the committed page with what this
script returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.objects import Metadata
from loopscope.specs.pipeline import PIPELINE
from loopscope.specs.reference import FieldFacts, model_facts

PAGE = Path(__file__).parent / "spec.md"

OTHERS = ", ".join(kind for kind in SPEC_BY_KIND if kind != "Experiment")
ALWAYS = ", ".join(f"`<name>-{node.name}`" for node in PIPELINE if not node.optional)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


ASKED_FOR = _listed([f"`{node.name}`" for node in PIPELINE if node.optional])
OPTIONAL = _listed([f"`<name>-{node.name}`" for node in PIPELINE if node.optional])

HEADER = f"""# Spec reference

Generated from the models in `specs/` by `docs/generate_spec_reference.py`; do not edit by hand.

An object is one YAML document:

```yaml
apiVersion: {API_VERSION}
kind: Experiment        # or {OTHERS}
metadata: {{name: france}}
spec: {{}}                # the fields below
```

A file may hold several documents. Unknown fields, duplicate keys, YAML aliases and merge keys are
refused with file, line, column and field. A `status` in the file is accepted and ignored.
So are numbers that YAML 1.1 and YAML 1.2 read differently: `010` and `1:30` (`3e-1` is 0.3).
*Required* means that there is no default. A field without a unit is a name, a choice or a plain
number. `loopscope explain KIND.spec.FIELD` prints the same in a terminal, and the [JSON
Schemas](schema/loopscope.json) tell it to editors.

Paths are relative to the YAML that names them. Text files must lie under the root (`--root`; by
default the git checkout that holds the YAML, else the current folder or the YAML's own); weights
may lie anywhere.

An Experiment owns {ALWAYS} and, where
{ASKED_FOR} are given, {OPTIONAL}; with a `matrix` it
owns one Experiment for each combination instead ([sweeps](how-to/sweep.md)). Each kind can also be
applied on its own; then the references (`captureRef`, `coarseRef`, `fineRef`, `mappingRef`,
`steeringRef`) name objects of the same namespace.

Checks that reach across fields, all made before anything is stored:

- `metadata.name` has at most 52 characters, so that the names of the owned objects stay valid.
- `file`, `templates` and `texts` exclude one another, and at least one text must be there. Texts
  are not blank and differ (case and spacing aside; what a table or templates give twice is left out
  and counted); no prompt is in two of the sets target, neutral and hardNegatives, and no opening of
  an Experiment's steering is a prompt. A file of texts has at most 16 MiB and a table 1,000,000
  rows, a YAML file 4 MiB with at most 100,000 values.
- `column` and `where` belong to a table (`format: csv`, `tsv`, `jsonl` or `parquet`), `lists` to
  `templates`. A column exists, a filter leaves at least one row, a sample is no larger than what it
  is drawn from.
- With a declared `splits.test` above 0 every condition keeps at least 5 prompts on either side;
  `calibrate` needs a declared `test` above 0 and at least 2 openings.
- A model `source` names exactly one of `package`, `gguf`, `folder`, `hub`; a dictionary either
  `path`, or `release` with `id`. `revision` belongs to a hub name, `sha256` of a model to a GGUF.
- `positions: assistant` and `afterTemplate` need `prompts.chat`, the first also `assistantPrefix`,
  which needs `addGenerationPrompt`; every prompt holds the text of `positions: {{token: …}}`. A
  chat template that can be read without a network renders the first prompt, and with
  `steering.systemPrompt` it keeps the system message. `steering.positions: assistant` and
  `afterTemplate` need `prompts.chat` as well, `{{token: …}}` that every opening holds the text.
- `aggregation: max` and `mean` need `positions: all` or `assistant`; `partialCosine` does not
  exceed `minCosine`; `arms` and `strengths` hold no value twice.
- No word of `lexicon` occurs in an opening, in `neutralText`, in `placeboPrompt` or, in an
  Experiment, in more than 1 % of the neutral prompts; no word counts as lexicon and as `siblings`.
  Without `neutralText` at least 8 packaged texts hold none. `placeboPrompt` needs `systemPrompt`.
- `writeHook` lies above `hook` and excludes `method: clamp`; with it both dictionaries are
  transcoders that write there, without it neither is one. `prefix` is below the number of latents,
  which may not compete (TopK). Pickled weights need `convert: sealed`, and no others take it.
- Along latents that read the tokens before as well (a `temporal` dictionary) nothing is steered:
  `steering` is left out.
- Each condition of an Experiment has at least 5 prompts, unless `selection.maxQ` is 1.
- A `matrix` has at most 6 axes and 256 combinations; every combination is a valid Experiment by
  itself, and no two would get the same name. A field belongs to one axis; texts are set as a whole.
- As far as local files and SAELens' registry tell: files exist and have the declared sha256, the
  model has the hook, each dictionary has the model's width and the spec's hook, the tokenizer has a
  BOS token, and the coarse dictionary has no more latents than the fine one. What needs a hub is
  checked when the name is resolved; a misfit then stalls the stage.
"""


def render() -> str:
    """Return the page."""
    pages = [model_facts(Metadata, "metadata")]
    pages += [model_facts(spec, kind) for kind, spec in SPEC_BY_KIND.items()]
    shown: set[str] = set()
    parts = [HEADER]
    for page in pages:
        parts.extend(_section(2, page.name, page))
        for _, field in page.below():
            if field.part and field.part not in shown:
                shown.add(field.part)
                parts.extend(_section(3, field.part, field))
    return "\n".join(parts).rstrip() + "\n"


def _section(level: int, title: str, facts: FieldFacts) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    yield f"{_cell(facts.about)}\n"
    yield "| field | type | default | bounds | unit | meaning |"
    yield "|---|---|---|---|---|---|"
    for field in facts.fields:
        link = f"[{field.part}](#{field.part.lower()})"
        type_ = field.type.replace("object", link) if field.part else field.type
        cells = (f"`{field.name}`", type_, field.default, field.bounds, field.unit, field.meaning)
        yield "| " + " | ".join(map(_cell, cells)) + " |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
