"""Small repositories in the exact layouts of SAELens' loaders, and SAELens' own reading of them.

An entry of the registry gives repository, path and file names; the numbers are drawn here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save

from loopscope.inputs.registry import release_block

D_IN, D_SAE, K = 8, 24, 5
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Repository:
    """An entry of the registry, and how a dictionary of these tensors lies in its repository."""

    release: str
    id: str
    files: Callable[[str, Tensors], dict[str, bytes]]

    @property
    def repo(self) -> str:
        return str(self._block["repo_id"])

    @property
    def path(self) -> str:
        return str(self._entry["path"])

    @property
    def norm_scaling_factor(self) -> float | None:
        return self._entry.get("norm_scaling_factor")

    def published(self, tensors: Tensors) -> dict[str, bytes]:
        return self.files(self.path, tensors)

    @property
    def loader(self) -> str:
        return str(self._block["conversion_func"])

    @property
    def _block(self):
        return release_block(self.release)

    @property
    def _entry(self):
        return next(one for one in self._block["saes"] if str(one["id"]) == self.id)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def drawn() -> dict[str, torch.Tensor]:
    """Return a dictionary of random numbers, decoder rows of many lengths and one of zeros."""
    w_dec = normal(D_SAE, D_IN, seed=1) * torch.linspace(0.2, 3, D_SAE)[:, None]
    w_dec[3] = 0
    return {
        "w_enc": normal(D_IN, D_SAE), "b_enc": 0.1 * normal(D_SAE), "w_dec": w_dec,
        "b_dec": normal(D_IN), "threshold": normal(D_SAE, seed=3).abs() + 0.1,
    }  # fmt: skip


def whole() -> dict[str, torch.Tensor]:
    """Return a dictionary of whole numbers: ties, thresholds that are met, negative sums."""
    made = {name: tensor.mul(2).round() for name, tensor in drawn().items()}
    made["w_enc"][:, 1] = made["w_enc"][:, 0]
    made["b_enc"][1] = made["b_enc"][0]
    made["threshold"] = made["threshold"].clamp(min=1.0)
    return made


def rows(*, of_whole_numbers: bool) -> torch.Tensor:
    x = 2 * normal(60, D_IN, seed=5)
    return x.round() if of_whole_numbers else x


def _in(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def _linear(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {
        "encoder.weight": tensors["w_enc"].T.contiguous(), "encoder.bias": tensors["b_enc"],
        "decoder.weight": tensors["w_dec"].T.contiguous(), "decoder.bias": tensors["b_dec"],
    }  # fmt: skip


def _json(**content: object) -> bytes:
    return json.dumps(content).encode()


def llama_scope(folder: str, tensors: Tensors) -> dict[str, bytes]:
    hyperparameters = _json(
        d_model=D_IN, d_sae=D_SAE, hook_point_in="blocks.0.hook_resid_post",
        hook_point_out="blocks.0.hook_resid_post", act_fn="jumprelu", jump_relu_threshold=1.5,
        dataset_average_activation_norm={"in": D_IN**0.5 / 58.935251798561154, "out": 1.0},
        expansion_factor=3, norm_activation="dataset-wise", use_decoder_bias=True,
    )  # fmt: skip
    weights = {name: tensor.bfloat16() for name, tensor in _linear(tensors).items()}
    return _in(
        folder,
        {"hyperparams.json": hyperparameters, "checkpoints/final.safetensors": save(weights)},
    )


def llama_scope_r1(folder: str, tensors: Tensors) -> dict[str, bytes]:
    config = _json(d_model=D_IN, expansion_factor=D_SAE // D_IN, act_fn="jumprelu",
                   hook_point_in="blocks.0.hook_resid_post")  # fmt: skip
    weights = {**_linear(tensors), "log_jumprelu_threshold": tensors["threshold"].log()}
    return _in(folder, {"config.json": config, "sae_weights.safetensors": save(weights)})


REPOSITORIES = {
    "llama_scope": Repository("llama_scope_lxr_8x", "l0r_8x", llama_scope),
    "llama_scope_r1_distill": Repository(
        "llama_scope_r1_distill", "l0r_800m_slimpajama", llama_scope_r1
    ),
}


def as_saelens_reads(repository: Repository):
    """Return SAELens' own dictionary of a repository, by the steps of ``SAE.from_pretrained``.

    Widths are those of the tensors: some loaders write down those of the published files.
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import (
        NAMED_PRETRAINED_SAE_LOADERS,
        handle_config_defaulting,
    )

    config, state, _ = NAMED_PRETRAINED_SAE_LOADERS[repository.loader](
        repository.repo, repository.path, "cpu", False, {"device": "cpu", "dtype": "float32"}
    )
    config |= {"d_in": state["W_enc"].shape[0], "d_sae": state["W_enc"].shape[1]}
    config = handle_config_defaulting(config)
    made = SAE.from_dict(config)
    made.process_state_dict_for_loading(state)
    made.load_state_dict(state)
    if config["normalize_activations"] == "expected_average_only_in":
        made.fold_activation_norm_scaling_factor(repository.norm_scaling_factor)
    return made.float()
