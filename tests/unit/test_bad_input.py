"""Bad input at the front door: each gets one clear line, and nothing is stored or run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopscope.state.folder import open_state
from tests.chat_templates import CHATML, DROPS_SYSTEM, GEMMA, TWO_BOS
from tests.fake_stages import D_MODEL
from tests.layouts import REPOSITORIES
from tests.tiny_experiment import save_dictionary
from tests.unit.test_plan import with_steering

READ, WRITE = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
ROWS = "country,sentence\n" + "".join(f"France,Sentence {n} is\n" for n in range(4))
Spec = dict[str, Any]


def chat(template: str, **more: str) -> Callable[[Path, Spec], None]:
    def edit(_: Path, spec: Spec) -> None:
        spec["prompts"]["chat"] = {"templateText": template, **more}

    return edit


def table(**neutral: Any) -> Callable[[Path, Spec], None]:
    """Both conditions from one table all of whose rows are about France."""

    def edit(folder: Path, spec: Spec) -> None:
        (folder / "rows.csv").write_text(ROWS)
        of = {"file": "../rows.csv", "format": "csv", "column": "sentence"}
        spec["prompts"]["target"] = {**of, "where": {"country": "France"}}
        spec["prompts"]["neutral"] = {**of, **neutral}

    return edit


def dictionary(**coarse: Any) -> Callable[[Path, Spec], None]:
    def edit(_: Path, spec: Spec) -> None:
        spec["dictionaries"]["coarse"] = coarse

    return edit


def transcoder(write_hook: str | None) -> Callable[[Path, Spec], None]:
    """A transcoder whose file does or does not say where it writes; the spec does not."""

    def edit(folder: Path, spec: Spec) -> None:
        save_dictionary(folder / "t", np.eye(D_MODEL), READ, write_hook or WRITE)
        if write_hook is None:
            path = folder / "t" / "cfg.json"
            cfg = json.loads(path.read_text())
            del cfg["metadata"]["hook_name_out"]
            path.write_text(json.dumps(cfg))
        spec["hook"] = READ
        spec["dictionaries"] = {side: {"path": "../t"} for side in ("coarse", "fine")}

    return edit


CODE = f"{open.__module__} open"


class Writes:
    """Code in a pickle, which would leave a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(Path("ran").resolve()), "w")


def pickled(
    bytes_said: int | None = None, *, zipped: bool = False, **coarse: Any
) -> Callable[[Path, Spec], None]:
    """A folder of ``dictionary_learning`` whose pickle holds code, grown to a size if asked."""

    def edit(folder: Path, spec: Spec) -> None:
        trainer = {"dict_class": "AutoEncoderTopK", "activation_dim": D_MODEL, "dict_size": 16,
                   "k": 4, "layer": 1, "submodule_name": "resid_post_layer_1",
                   "lm_name": "tiny"}  # fmt: skip
        (folder / "p").mkdir()
        (folder / "p" / "config.json").write_text(json.dumps({"trainer": trainer}))
        if zipped:
            with zipfile.ZipFile(folder / "p" / "ae.pt", "w") as archive:
                archive.writestr("ae/data.pkl", pickle.dumps({"w": Writes()}, 2))
        else:
            with (folder / "p" / "ae.pt").open("wb") as file:
                pickle.dump(Writes(), file)
                file.truncate(bytes_said)
        spec["dictionaries"]["coarse"] = {"path": "../p", **coarse}

    return edit


def temporal(*, local: bool) -> Callable[[Path, Spec], None]:
    """A temporal dictionary in an experiment that steers."""

    def edit(folder: Path, spec: Spec) -> None:
        with_steering(spec)
        repository = REPOSITORIES["temporal"]
        named = {"release": repository.release, "id": repository.id, "usableAt": "any"}
        if local:
            (folder / repository.path).mkdir(parents=True)
            for name, data in repository.published().items():
                (folder / name).write_bytes(data)
            named = {"path": f"../{repository.path}"}
        spec["dictionaries"]["fine"] = named

    return edit


CASES = {
    "a template that is no Jinja": (chat("{% if %}"), "spec.prompts.chat", "no valid Jinja"),
    "a template of other fields": (chat("{{ message.text }}"), "spec.prompts.chat", "undefined"),
    "a template that drops the system message": (
        chat(DROPS_SYSTEM, system="Hi"), "spec.prompts.chat", "drops the system message"),
    "a template that refuses the system message": (
        chat(GEMMA, system="Hi"), "spec.prompts.chat", "System role not supported"),
    "a second BOS": (chat(TWO_BOS), "spec.prompts.chat", "begins with two BOS tokens"),
    "an unknown column": (
        table(column="text"), "spec.prompts.neutral", "has no column 'text'"),
    "an unknown column of the filter": (
        table(where={"land": "Italy"}), "spec.prompts.neutral", "has no column 'land'"),
    "a filter that says nothing": (table(where={}), "spec.prompts.neutral.where", "where"),
    "a label with one class": (
        table(where={"country": "Italy"}), "spec.prompts.neutral", "France"),
    "a dictionary of another width": (
        dictionary(path="../wide"), "spec.dictionaries.coarse.path", "vectors of width 12"),
    "a transcoder that does not say where it writes": (
        transcoder(None), "spec.dictionaries.coarse", "hook_name_out is missing"),
    "a transcoder without a write hook": (
        transcoder(WRITE), "spec.dictionaries.coarse.path", f"write writeHook: {WRITE}"),
    "a prefix wider than the dictionary": (
        dictionary(path="../coarse", prefix=9), "spec.dictionaries.coarse.prefix",
        "expected fewer latents than the dictionary has (8), found 9"),
    "a pickle that nobody asked to open": (
        pickled(), "spec.dictionaries.coarse", "convert: sealed"),
    "a pickle with code in it": (
        pickled(convert="sealed"), "spec.dictionaries.coarse.path",
        "ae.pt is no pickle of tensors alone: it is not a checkpoint of PyTorch's zip format, "
        f"since 1.6 (File is not a zip file), but a pickle that names '{CODE} (STACK_GLOBAL)'; it "
        "was not opened"),
    "a checkpoint with code in it": (
        pickled(zipped=True, convert="sealed"), "spec.dictionaries.coarse.path",
        f"ae.pt is no pickle of tensors alone: it names '{CODE}', which is no tensor; it was not "
        "opened"),
    "steering along a release's latents that read the tokens before": (
        temporal(local=False), "spec.dictionaries.fine.release", "leave steering out"),
    "steering along a file's latents that read the tokens before": (
        temporal(local=True), "spec.dictionaries.fine.path", "leave steering out"),
    "a file of 40 GB where 40 MB would do": (
        pickled(40 * 2**30, convert="sealed"), "spec.dictionaries.coarse", "42949672960 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", [("apply", "-f"), ("run",)], ids=["apply", "run"])
def test_bad_input_is_one_line_and_nothing_is_stored_or_run(
    loopscope, experiment, tmp_path, case, command
):
    edit, field, words = CASES[case]
    path = experiment(lambda spec: edit(tmp_path, spec))
    code, out, err = loopscope(*command, path)
    lines = [line for line in (out + err).splitlines() if "x.yaml" in line]
    assert code == 2, out + err
    assert 1 <= len(lines) <= 2, "one for each dictionary that it concerns"
    assert all(words in line for line in lines), lines
    assert field in lines[0] and "Traceback" not in out + err
    state = open_state(tmp_path / "state")
    with state.database.read() as connection:
        tables = ("objects", "jobs")
        counts = [connection.exec_driver_sql(f"select count(*) from {t}").scalar() for t in tables]
    assert counts == [0, 0]
    assert not (tmp_path / "ran").exists()


def test_latents_that_read_the_tokens_before_are_mapped_where_nothing_is_steered(
    loopscope, experiment, tmp_path
):
    def edit(spec: Spec) -> None:
        temporal(local=True)(tmp_path, spec)
        del spec["steering"]
        spec["dictionaries"]["coarse"] = {**spec["dictionaries"]["fine"]}

    code, out, err = loopscope("apply", "-f", experiment(edit))
    assert code == 0, out + err


def test_the_same_spec_without_the_fault_is_accepted(loopscope, experiment):
    def edit(spec: Spec) -> None:
        spec["prompts"]["chat"] = {"templateText": CHATML, "system": "Hi"}
        spec["dictionaries"]["coarse"]["prefix"] = 7

    assert loopscope("apply", "-f", experiment(edit))[0] == 0
