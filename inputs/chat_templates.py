"""The chat template that comes with a model."""

from __future__ import annotations

from pathlib import Path

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import read_json_object
from loopscope.inputs.gguf_header import read_gguf_text
from loopscope.inputs.headers import HeaderError
from loopscope.inputs.hub import Hub
from loopscope.inputs.packages import find_packaged_gguf
from loopscope.specs.chat_words import TEMPLATE_CHARACTERS_MAX
from loopscope.specs.json_values import JsonObject
from loopscope.specs.payloads.references import ModelReference

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
GGUF_KEY = "tokenizer.chat_template"


def chat_template_of(ref: ModelReference, hub: Hub) -> str:
    """Return the chat template of a resolved model.

    Of a folder or repository the file of its own, else that in the tokenizer's config, as
    transformers does; of a GGUF file that in its header. Raises InputRefused and ResolutionPending.
    """
    place = ref["source"]
    match place["kind"]:
        case "package":
            found = _of_gguf(find_packaged_gguf(place["package"]).parts[0])
        case "gguf":
            found = _of_gguf(Path(place["path"]))
        case "folder":
            files = {name: Path(place["path"]) / name for name in (TEMPLATE_FILE, CONFIG_FILE)}
            found = _of_files({name: path for name, path in files.items() if path.is_file()})
        case "hub":
            at = hub.commit(place["repo"], place["revision"], _FIELD)
            name = TEMPLATE_FILE if TEMPLATE_FILE in at.files else CONFIG_FILE
            held = [name] if name in at.files else []
            found = _of_files({name: hub.download(at, name, _FIELD) for name in held})
    if found is None or not found.strip():
        raise InputRefused(
            _FIELD,
            f"{ref['name']} comes without a chat template; use an instruct model, or name a "
            "template file (prompts.chat.template)",
        )
    if len(found) > TEMPLATE_CHARACTERS_MAX:
        raise InputRefused(
            _FIELD,
            f"the chat template of {ref['name']} has {len(found):,} characters, expected at most "
            f"{TEMPLATE_CHARACTERS_MAX:,}",
        )
    return found


_FIELD = ""
"""What is wrong with a template is no fault of a field of the model."""


def _of_gguf(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return read_gguf_text(stream, GGUF_KEY)
    except HeaderError as error:
        raise InputRefused(_FIELD, f"{path}: {error}") from None


def _of_files(files: dict[str, Path]) -> str | None:
    if TEMPLATE_FILE in files:
        try:
            return files[TEMPLATE_FILE].read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputRefused(_FIELD, f"{TEMPLATE_FILE} is not UTF-8") from None
    if CONFIG_FILE not in files:
        return None
    try:
        return _of_config(read_json_object(files[CONFIG_FILE]))
    except ValueError as error:
        raise InputRefused(_FIELD, f"{CONFIG_FILE} is not readable: {error}") from None


def _of_config(config: JsonObject) -> str | None:
    given = config.get("chat_template")
    if isinstance(given, list):  # several, each with a name
        named = {
            str(one.get("name")): one.get("template") for one in given if isinstance(one, dict)
        }
        given = named.get("default")
    return given if isinstance(given, str) else None
