"""What the pages for those who add something say is done in a copy of the source, and works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Copy:
    """A copy of the source, changed as a page says, and asked in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rooms = [link.name for link in (ROOT / "loopscope").iterdir() if link.is_symlink()]
        for name in ("loopscope", *rooms):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)

    def bring(self, *names: str) -> None:
        """Copy files and folders beside the source."""
        for name in names:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, self.folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, self.folder / name)

    def add(self, page: str, file: str) -> None:
        """Write a file that the page shows: the first code after its name."""
        path = self.folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(self._after(page, f"`{file}`:"))

    def insert(self, page: str, file: str, before: str, shown_after: str) -> None:
        """Put what the page shows after some words before a line of a file."""
        self.put(file, before, self._after(page, shown_after))

    def replace(self, page: str, file: str, old: str, shown_after: str) -> None:
        """Put what the page shows after some words in the place of a line of a file."""
        self.insert(page, file, old, shown_after)
        path = self.folder / file
        path.write_text(path.read_text().replace(old, ""))

    def put(self, file: str, before: str, lines: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert text.count(before) == 1, f"{before!r} is not once in {file}"
        path.write_text(text.replace(before, lines + before))

    def python(self, script: str) -> None:
        self.run("-c", script)

    def run(self, *words: str) -> None:
        path = os.pathsep.join(map(str, (self.folder, ROOT)))  # the copy first, then the tests
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *words]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stdout[-6000:]}{done.stderr}"

    def _after(self, page: str, words: str) -> str:
        text = (ROOT / "docs/extending" / page).read_text(encoding="utf-8")
        _, found, rest = text.partition(words)
        assert found, f"{page} does not say {words!r}"
        return re.search(r"```(?:python|md)\n(.*?)```", rest, re.DOTALL)[1]


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


PROLU = """
import json, sys
import numpy as np
import torch
from pathlib import Path
from safetensors.torch import save_file

folder, width, latents = Path("prolu"), 12, 40
generator = torch.Generator().manual_seed(3)
normal = lambda *shape: torch.randn(*shape, generator=generator)
tensors = {
    "W_enc": normal(width, latents), "W_dec": normal(latents, width), "b_dec": normal(width),
    "b_prolu": normal(latents),
}
folder.mkdir()
save_file(tensors, folder / "sae_weights.safetensors")
config = {"architecture": "prolu", "d_in": width, "d_sae": latents, "apply_b_dec_to_input": True,
          "dtype": "float32", "device": "cpu",
          "metadata": {"sae_lens_version": "6.40.0", "hook_name": "blocks.1.hook_resid_post"}}
(folder / "cfg.json").write_text(json.dumps(config))

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.numerics.dictionaries.sparse import encode
from loopscope.numerics.dictionaries.edge import encode_to_the_edge, encoder_norms
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.stages.steering.arms import Arms
from loopscope.worker.stages.steering.clamp import clamped_latents

ref = describe_dictionary({"path": str(folder.resolve())}).ref
assert ref["architecture"] == "prolu", ref
dictionary = load_dictionary(ref)
x = normal(30, width)
centred = x - tensors["b_dec"]
unbiased = centred @ tensors["W_enc"]
expected = torch.relu(unbiased) * (unbiased + tensors["b_prolu"] > 0)
assert (expected > 0).any() and (torch.relu(unbiased) > expected).any()
for blocks in ((30, 40), (7, 9)):
    np.testing.assert_allclose(encode(dictionary, x, *blocks).toarray(), expected, atol=1e-5)
found, _ = encode_to_the_edge(dictionary, x, 30, 40, encoder_norms(dictionary))
np.testing.assert_allclose(found.toarray(), expected, atol=1e-5)

class Context:
    device = "cpu"
    def dictionary(self, ref):
        return load_dictionary(ref)

class Coarse:
    latents = {"coarse": {"coarse": [7, 31], "fine": []}}

clamped = clamped_latents({"method": "clamp", "coarse": {"dictionary": ref}}, Context(), Coarse())
ablated = clamped.of(["coarse"]).ablated(x[None])[0]
np.testing.assert_allclose(ablated, expected[:, [7, 31]] @ tensors["W_dec"][[7, 31]], atol=1e-4)
"""


def test_an_architecture_is_a_module_and_a_line_in_two_tables(copy):
    copy.add("architecture.md", "numerics/architectures/prolu.py")
    table = '}\n"""By the name that SAELens gives them."""'
    copy.insert("architecture.md", "inputs/architectures.py", table, "The line of the first table")
    copy.put(
        "numerics/architectures/__init__.py",
        "from loopscope.numerics.architectures.jumprelu",
        "from loopscope.numerics.architectures.prolu import Prolu\n",
    )
    copy.put(
        "numerics/architectures/__init__.py", "    )\n}\n\n\ndef dictionary_of", "        Prolu,\n"
    )
    copy.python(PROLU)


TEXTS = """
import json
from pathlib import Path
from loopscope.specs.fields import Texts
from loopscope.specs.files import RootedFiles

folder = Path("prompts")
folder.mkdir()
(folder / "a.txt").write_text("the wine\\nof\\n\\n\\nparis is\\n")
files = RootedFiles(folder.resolve(), folder.resolve())
given = {"file": "a.txt", "format": "paragraphs"}
texts = Texts.model_validate(given, context={"files": files})
assert texts.texts == ("the wine\\nof", "paris is")
assert Texts.model_validate(texts.canonical()) == texts, "stored, it is read no more"

(folder / "b.txt").write_text("rome\\n")
try:
    Texts.model_validate({**given, "file": "b.txt"}, context={"files": files})
except ValueError as error:
    assert "b.txt holds no blank line" in str(error), error
else:
    raise AssertionError("read what holds no two texts")
"""


def test_a_source_of_texts_is_a_module_a_line_in_a_table_and_a_word_in_the_spec(copy):
    copy.add("texts.md", "specs/texts/paragraphs.py")
    copy.put(
        "specs/texts/__init__.py",
        "from loopscope.specs.texts.plain_file",
        "from loopscope.specs.texts.paragraphs import PARAGRAPHS\n",
    )
    copy.put("specs/texts/__init__.py", ")\nSOURCE_FIELDS", ", PARAGRAPHS")
    old = '    format: Literal["lines", "csv", "tsv", "jsonl", "parquet"] | None = None\n'
    copy.replace("texts.md", "specs/fields.py", old, "one more word:")
    copy.python(TEXTS)


SHOUTING = """
import json
from dataclasses import replace
from pathlib import Path
import pandas
import loopscope.specs
from loopscope.specs.kinds.steering import SteeringSpec
from loopscope.specs.outcomes import asked_of_outcomes
from loopscope.worker.stages.steering.outcomes.measures import measured
from loopscope.worker.stages.steering.tables import write_results
from tests.unit.test_independent_verdict import WORLDS, scored

assert Path(loopscope.specs.__file__).is_relative_to(Path.cwd()), "this is the copy"
plain = {"captureRef": {"name": "c"}, "mappingRef": {"name": "m"},
         "prompts": {"texts": ["We met"]}, "lexicon": {"texts": ["France"]}}
for word in (None, "capitals"):
    given = plain if word is None else plain | {"shouting": word}
    spec = SteeringSpec.model_validate(given).canonical()
    assert asked_of_outcomes(spec).get("shouting") == word

kept = {}

class Run:
    def kept(self, name, compute):
        kept.setdefault(name, compute())
        return kept[name]

unasked = scored(WORLDS["Supported"], 4, 1, [0.1], 1)
run = Run()
run.payload = unasked.payload
assert "shouting" not in measured(unasked, run)
texts = {row: text.upper() if row.opening else text for row, text in unasked.texts.items()}
texts = {row: text if row.opening else text.lower() for row, text in texts.items()}
asked = replace(unasked, payload=unasked.payload | {"shouting": "capitals"}, texts=texts)
run.payload = asked.payload
out = Path("out")
out.mkdir()
found = replace(asked, outcomes=measured(asked, run) | asked.outcomes)
write_results(found, out)
scores = pandas.read_parquet(out / "steering_scores.parquet")
assert sorted(scores["shouting"].unique()) == [0.0, 1.0], scores["shouting"].unique()
assert len(kept["shouting.json"]) == len(asked.rows)
assert "shouting" in pandas.read_parquet(out / "arms.parquet")
assert "shouting" in json.dumps(json.loads((out / "verdict.json").read_text()))
"""


def test_an_outcome_is_a_module_a_line_in_two_tables_and_a_field_of_the_spec(copy):
    copy.add("outcome.md", "worker/stages/steering/outcomes/shouting.py")
    copy.insert("outcome.md", "specs/rules.py", "    probe_hook: HookName", "The field:")
    copy.insert("outcome.md", "specs/outcomes.py", "OUTCOMES: Mapping", "The outcome:")
    end_of_table = "}\n\n\n@dataclass(frozen=True)\nclass OutcomeOfTexts"
    copy.put("specs/outcomes.py", end_of_table, ', "shouting": SHOUTING')
    package = "worker/stages/steering/outcomes/measures.py"
    copy.put(
        package,
        "from loopscope.worker.stages.steering.run",
        "from loopscope.worker.stages.steering.outcomes.shouting import shouting\n",
    )
    copy.put(package, "}\n\n\ndef measured", ', "shouting": shouting')
    copy.python(SHOUTING)


WALKING = (
    "specs_pipeline",
    "spec_json",
    "specs_payloads",
    "specs_schema",
    "artifact_files",
    "artifacts_page",
    "golden_digests",
    "reports_listing",
)
"""They walk all kinds, nodes and stages."""


def test_a_kind_is_what_is_found_by_its_name_and_a_line_in_each_table(copy):
    copy.bring("docs", "tests", "pyproject.toml", "ARCHITECTURE.md")
    page = "kind.md"
    for file in (
        "specs/kinds/lengths.py",
        "specs/payloads/lengths.py",
        "specs/artifacts/lengths.py",
        "reconcilers/lengths.py",
        "worker/stages/lengths/stage.py",
    ):
        copy.add(page, file)
    (copy.folder / "worker/stages/lengths/__init__.py").write_text('"""Lengths."""\n')
    end_of_names = "]\n\n\n@dataclass(frozen=True)\nclass Node"
    copy.put("specs/pipeline.py", end_of_names, '    "lengths",\n')
    copy.insert(
        page, "specs/pipeline.py", ")\n\n\n@dataclass(frozen=True)\nclass Shared", "The node:"
    )
    copy.put("specs/actions.py", '    "question",\n]', '    "lengths",\n')
    copy.put("specs/actions.py", '}\n"""Raise', '    "lengths": 1,\n')
    copy.put("specs/actions.py", '}\n"""What a revision', '    "lengths": {},\n')
    experiment = "specs/kinds/experiment.py"
    copy.insert(page, experiment, "    steering: SteeringRules |", "An Experiment has the rules")
    copy.put(
        experiment,
        "from loopscope.specs.rules import",
        "from loopscope.specs.kinds.lengths import LengthsRules\n",
    )
    stored = "specs/spec_json.py"
    copy.insert(page, stored, "class DictionariesJson", "The stored form")
    copy.put(stored, "    matrix: NotRequired", "    lengths: NotRequired[LengthsRulesJson]\n")
    registry = "reconcilers/registry.py"
    copy.put(
        registry, "from loopscope.reconcilers.plan", "from loopscope.reconcilers import lengths\n"
    )
    copy.put(registry, '    "Question": question', '    "Lengths": lengths.desired,\n')
    copy.put(registry, '}\n"""What an Experiment says', '    "Lengths": lengths.owned,\n')
    columns = '    "Lengths": {**_STATE, "TOKENS": _summary("tokens", count)},\n'
    copy.put("reports/tables/listing.py", '    "Question": {', columns)
    copy.insert(page, "docs/artifacts.md", "### steering/\n", "In `docs/artifacts.md`:")
    copy.put("ARCHITECTURE.md", "| question | model identity", "| lengths | the capture |\n")
    world = "tests/artifact_world.py"
    copy.put(
        world,
        "from loopscope.worker.stages.mapping",
        "from loopscope.worker.stages.lengths import stage as lengths\n",
    )
    asked = '    world.run(lengths, {"longest": 2, "capture": {"digest": "c"}}, "lengths")\n'
    copy.put(world, "    world.run(steering,", asked)
    copy.put(
        world, '        "question": world.folder', '        "lengths": world.folder / "lengths",\n'
    )

    for script in sorted((ROOT / "docs").glob("generate_*.py")):
        if "dictionary" not in script.name:
            copy.run(f"docs/{script.name}")
    copy.run("-m", "loopscope", "schema", "-o", "docs/schema")
    for module in ("test_artifact_files", "test_golden_digests"):
        copy.run("-m", f"tests.unit.{module}")
    asking = [f"tests/unit/test_{name}.py" for name in WALKING]
    others = ["-k", "not every_example"]  # that stay outside
    copy.run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *others, *asking)


def test_a_command_is_a_module_a_line_in_the_table_and_a_section_of_the_page(copy):
    copy.bring("docs", "tests", "pyproject.toml", "README.md")
    copy.add("command.md", "loopscope/commands/state_folder/where.py")
    table = '        "state_folder.backup":'
    copy.insert("command.md", "loopscope/commands/__init__.py", table, "its line in the table:")
    places = "<!-- options of loopscope where -->\n<!-- end -->\n"
    copy.put("docs/commands.md", "### loopscope top\n", f"### loopscope where\n\n{places}\n")
    copy.run("docs/generate_command_reference.py")
    page = (copy.folder / "docs/commands.md").read_text()
    assert "`--absolute`" in page and "From the root on." in page
    chosen = "[where or one_place or options_on or every_command or help_lists or every_example"
    asking = [
        "tests/unit/test_help.py",
        "tests/unit/test_quick_start.py",
        "tests/unit/test_docs.py",
    ]
    copy.run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", chosen, *asking)
