"""Chat: how a text becomes what a person says to a model; which tokens are read, or steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from loopscope.specs.chat_words import (
    IN_A_CHAT,
    OF_THE_MODEL,
    TEMPLATE_CHARACTERS_MAX,
    needs_chat,
)
from loopscope.specs.fields import Spec, exactly_one, file_reader
from loopscope.specs.suggest import closest
from loopscope.specs.texts.plain_file import decoded

WORDS_CHARACTERS_MAX = 20_000

Words = Annotated[str, Field(min_length=1, max_length=WORDS_CHARACTERS_MAX)]


class Chat(Spec):
    """Each text is what a person says, put into the model's chat template.

    Prompts, openings of steering and its neutral texts alike. Exactly one BOS stands before all,
    whether the template writes it or not.
    """

    template: Annotated[str, Field(min_length=1, max_length=4096)] = OF_THE_MODEL
    """``model``: the template that comes with the model (``chat_template.jinja``,
    ``tokenizer_config.json``, the header of a GGUF file); or a Jinja file, relative to the YAML."""
    template_text: Annotated[str, Field(max_length=TEMPLATE_CHARACTERS_MAX)] | None = None
    """The template itself, in place of a file; beside a file what was read from it."""
    system: Words | None = None
    """The system message before each text; a template that drops it is refused."""
    assistant_prefix: Words | None = None
    """Words that the assistant has said already; they stand behind the template's end."""
    add_generation_prompt: bool = True
    """End with what begins the assistant's turn."""

    @model_validator(mode="before")
    @classmethod
    def _read_template(cls, data: Any, info: ValidationInfo) -> Any:
        reader = file_reader(info)
        named = data.get("template") if isinstance(data, dict) else None
        if reader is None or not isinstance(named, str) or named == OF_THE_MODEL:
            return data
        if data.get("templateText") is None:
            text = decoded(reader.content(named), named)
            if len(text) > TEMPLATE_CHARACTERS_MAX:
                raise ValueError(
                    f"{named} has {len(text):,} characters, expected at most "
                    f"{TEMPLATE_CHARACTERS_MAX:,}; is it a chat template?"
                )
            return {**data, "templateText": text}
        if not (info.context or {}).get("exported"):
            raise ValueError("give either a template that is a file, or templateText, not both")
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Chat:
        if self.assistant_prefix is not None and not self.add_generation_prompt:
            raise ValueError("assistantPrefix needs addGenerationPrompt: true")
        return self


class Position(Spec):
    """One token of each prompt, by its text or its number."""

    model_config = exactly_one(("token",), ("index",))

    token: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The token that ends this part of the prompt's own text, where it stands last."""
    index: Annotated[int, Field(ge=-8192, le=8191)] | None = None
    """The token with this number, BOS not counted: 0 is the first, -1 the last."""

    @model_validator(mode="after")
    def _one_way(self) -> Position:
        if (self.token is None) == (self.index is None):
            raise ValueError("expected either token or index")
        return self


NamedPositions = Literal["last", "all", "lastContent", "assistant", "afterTemplate"]
SteeredNames = Literal[
    "all", "opening", "generated", "assistant", "last", "lastContent", "afterTemplate"
]


def _one_kind(value: Any, names: tuple[str, ...]) -> Any:
    """Return a name or a Position; one clear sentence for anything else."""
    listed = f"{', '.join(names)}, {{token: …}} or {{index: …}}"
    if isinstance(value, Position) or value in names:
        return value
    if isinstance(value, str):
        close = closest(value, names)
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"expected {listed}; found {value!r}{hint}")
    if not isinstance(value, dict):
        raise ValueError(f"expected {listed}; found {value!r}")
    try:
        return Position.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        what = (
            "unknown field"
            if first["type"] == "extra_forbidden"
            else first["msg"].removeprefix("Value error, ")
        )
        raise ValueError(f"{where + ': ' if where else ''}{what}; expected {listed}") from None


Positions = Annotated[
    NamedPositions | Position, BeforeValidator(partial(_one_kind, names=get_args(NamedPositions)))
]
SteeredPositions = Annotated[
    SteeredNames | Position, BeforeValidator(partial(_one_kind, names=get_args(SteeredNames)))
]


def check_positions(
    positions: Positions, chat: Chat | None, texts: Mapping[str, tuple[str, ...]]
) -> None:
    """Raise ValueError for positions that the prompts, by condition, cannot have."""
    if positions in IN_A_CHAT and chat is None:
        raise ValueError(f"positions {positions} needs prompts.chat: there is no template without")
    if positions == "assistant" and (chat is None or chat.assistant_prefix is None):
        raise ValueError(
            "positions assistant needs prompts.chat.assistantPrefix: no other words of the "
            "assistant are there to be read"
        )
    for condition, own in texts.items():
        check_part(positions, own, condition, "prompt")


def check_steered(positions: SteeredPositions, chat: bool) -> None:
    """Raise ValueError for steered positions that are there in a chat only."""
    if positions in IN_A_CHAT and not chat:
        raise ValueError(needs_chat(str(positions)))


def check_part(
    positions: Positions | SteeredPositions, texts: Sequence[str], where: str, kind: str
) -> None:
    """Raise ValueError where a text lacks the part whose token is meant; ``where`` names them."""
    part = positions.token if isinstance(positions, Position) else None
    for number, text in enumerate(texts, start=1):
        if part is not None and part not in text:
            raise ValueError(
                f"positions.token {part!r} is not in text {number} of {where} "
                f"({text[:60]!r}); every {kind} needs it"
            )
