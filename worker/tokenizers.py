"""A model's tokenizer: texts to tokens and back, with exactly one BOS."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loopscope.specs.payloads.references import ModelReference
from loopscope.specs.tokens import BOS_ADVICE
from loopscope.state.failures import TerminalFailure
from loopscope.worker.memory import ran_out_of_memory
from loopscope.worker.model_sources import ModelView

LOADING_WORDS_MAX = 500
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A tokenizer with the tokens that begin a text in a chat template, and a plain one."""

    tokenizer: Any = field(repr=False)
    bos_token: int
    plain_bos: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of ``text`` with exactly one BOS in front.

        Raises TerminalFailure ``DoubledBos`` when the text itself starts with the BOS token,
        ``SpecialTokenInText`` when another token in it begins, ends or pads a text, and
        ``EmptyText`` when nothing but BOS would remain.
        """
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not tokens:
            raise TerminalFailure("EmptyText", f"{text!r} holds no token; remove it")
        begins = {self.bos_token, self.plain_bos}
        if tokens[0] in begins:
            raise TerminalFailure(
                "DoubledBos", f"{text[:60]!r} starts with BOS, which is added anyway; remove it"
            )
        special = {*begins, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        found = next((token for token in tokens if token in special), None)
        if found is not None:
            raise TerminalFailure(
                "SpecialTokenInText",
                f"{text[:60]!r} holds the special token {self.tokenizer.decode([found])!r}, which "
                "begins, ends or pads a text; remove it",
            )
        return [self.plain_bos, *tokens]

    @property
    def special_tokens(self) -> frozenset[int]:
        """The tokens that the tokenizer names as special: BOS, EOS, padding, turns of a chat."""
        return frozenset(self.tokenizer.all_special_ids)

    def written(self, token: int) -> str:
        """Return a token as it is written out, special ones too."""
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ``tokens`` without special tokens and without any tidying."""
        return str(
            self.tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def load_tokenizer(view: ModelView, ref: ModelReference) -> TextEncoder:
    """Load the tokenizer as the bridge wants it, or the bridge would load it a second time.

    Raises TerminalFailure ``ModelNotLoadable``, ``UnknownBosToken`` and ``TokenizerWithoutBos``.
    """
    from transformers import AutoTokenizer

    def load() -> Any:
        try:
            return AutoTokenizer.from_pretrained(
                str(view.path), local_files_only=True, trust_remote_code=False, add_bos_token=True
            )
        except ValueError:  # the tokenizer has no BOS token to add
            return AutoTokenizer.from_pretrained(
                str(view.path), local_files_only=True, trust_remote_code=False
            )

    tokenizer = loading(view, load)
    names = {*getattr(tokenizer, "vocab_files_names", {}).values(), *TOKENIZER_FILES}
    if not any((view.path / name).is_file() for name in names):
        # transformers would go on with an empty vocabulary: every word unknown
        raise TerminalFailure(
            "ModelNotLoadable",
            f"{view.folder} holds no tokenizer (none of {', '.join(sorted(names))})",
        )
    named = _named_bos(tokenizer, ref)
    own = tokenizer.bos_token_id
    begin = own if own is not None else named
    if begin is None:
        raise TerminalFailure(
            "TokenizerWithoutBos",
            f"the tokenizer of {ref['name']} has no BOS token, and each prompt starts with one; "
            f"{BOS_ADVICE}",
        )
    return TextEncoder(
        tokenizer=tokenizer, bos_token=begin, plain_bos=begin if named is None else named
    )


def _named_bos(tokenizer: Any, ref: ModelReference) -> int | None:
    """Return the token that the spec names as the beginning of plain text, if it names one."""
    named = ref.get("bos_token")
    if named is None:
        return None
    found = tokenizer.get_vocab().get(named)
    if found is None:
        raise TerminalFailure(
            "UnknownBosToken",
            f"model.bosToken {named!r} is no token of {ref['name']}; expected one as it is written "
            f"in its tokenizer, for example {_examples(tokenizer)}",
        )
    return int(found)


def _examples(tokenizer: Any) -> str:
    return ", ".join(repr(str(token)) for token in tokenizer.all_special_tokens[:5]) or "none"


def loading(view: ModelView, load: Callable[[], Any]) -> Any:
    """Call ``load``; any error of a library about bad files becomes one terminal failure.

    What may pass by itself (no memory, a disk that does not answer) is raised as it is.
    """
    try:
        return load()
    except Exception as error:
        passing = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
        if passing or ran_out_of_memory(error):
            raise
        message = str(error).replace(str(view.path), str(view.folder))
        words = " ".join(message.split())[:LOADING_WORDS_MAX]
        raise TerminalFailure("ModelNotLoadable", f"{view.folder}: {words}") from error
