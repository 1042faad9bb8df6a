"""Small repositories in the exact layouts of SAELens' loaders, and SAELens' own reading of them.

An entry of the registry gives repository, path and file names; the numbers are drawn here.
"""

from __future__ import annotations

import collections
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import yaml
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
    d_sae: int = D_SAE

    @property
    def repo(self) -> str:
        return str(self._block["repo_id"])

    @property
    def path(self) -> str:
        return str(self._entry["path"])

    @property
    def norm_scaling_factor(self) -> float | None:
        return self._entry.get("norm_scaling_factor")

    def published(self, tensors: Tensors | None = None) -> dict[str, bytes]:
        return self.files(self.path, tensors or drawn(self.d_sae))

    @property
    def loader(self) -> str:
        return str(self._block["conversion_func"] or "sae_lens")

    @property
    def _block(self):
        return release_block(self.release)

    @property
    def _entry(self):
        return next(one for one in self._block["saes"] if str(one["id"]) == self.id)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def drawn(d_sae: int = D_SAE) -> dict[str, torch.Tensor]:
    """Return a dictionary of random numbers, decoder rows of many lengths and one of zeros."""
    w_dec = normal(d_sae, D_IN, seed=1) * torch.linspace(0.2, 3, d_sae)[:, None]
    w_dec[3] = 0
    return {
        "w_enc": normal(D_IN, d_sae), "b_enc": 0.1 * normal(d_sae), "w_dec": w_dec,
        "b_dec": normal(D_IN), "threshold": normal(d_sae, seed=3).abs() + 0.1,
    }  # fmt: skip


def whole(d_sae: int = D_SAE) -> dict[str, torch.Tensor]:
    """Return a dictionary of whole numbers: ties, thresholds that are met, negative sums."""
    made = {name: tensor.mul(2).round() for name, tensor in drawn(d_sae).items()}
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


def pickled(tensors: Mapping[str, object]) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def _same_names(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {
        "W_enc": tensors["w_enc"], "W_dec": tensors["w_dec"], "b_enc": tensors["b_enc"],
        "b_dec": tensors["b_dec"],
    }  # fmt: skip


def dictionary_learning(kind: str, weights: Callable[[Tensors], Mapping[str, object]]):
    """Return how a class of ``dictionary_learning`` lies in its folder."""

    def files(folder: str, tensors: Tensors) -> dict[str, bytes]:
        trainer = {
            "dict_class": kind, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 12,
            "lm_name": "google/gemma-2-2b", "submodule_name": "resid_post_layer_12",
        }  # fmt: skip
        if "TopK" in kind:
            trainer["k"] = K
        config = _json(trainer=trainer, buffer={"ctx_len": 128, "d_submodule": D_IN})
        return _in(folder, {"config.json": config, "ae.pt": pickled(weights(tensors))})

    return files


def _auto_encoder(tensors: Tensors) -> dict[str, object]:
    named = _linear(tensors)
    named["bias"] = named.pop("decoder.bias")
    return dict(named)


def top_k(tensors: Tensors) -> dict[str, object]:
    named = _linear(tensors)
    named["b_dec"] = named.pop("decoder.bias")
    return {**named, "k": torch.tensor(K), "threshold": torch.tensor(-1.0)}


def tensors_of_a_top_k() -> dict[str, object]:
    return top_k(drawn())


def _batch_top_k(tensors: Tensors) -> dict[str, object]:
    return {**top_k(tensors), "threshold": torch.tensor(2.0)}


def _matryoshka(tensors: Tensors) -> dict[str, object]:
    more = {"k": torch.tensor(K), "threshold": torch.tensor(2.0), "group_sizes": [8, 16]}
    return {**_same_names(tensors), **more}


def _jump(tensors: Tensors) -> dict[str, object]:
    return {**_same_names(tensors), "threshold": tensors["threshold"]}


def qwen_scope(path: str, tensors: Tensors) -> dict[str, bytes]:
    named = _same_names(tensors)
    turned = {name: named[name].T.contiguous() for name in ("W_enc", "W_dec")}
    return {path: pickled({**named, **turned})}


def goodfire(path: str, tensors: Tensors) -> dict[str, bytes]:
    named = {name.replace(".", "_linear."): tensor for name, tensor in _linear(tensors).items()}
    return {path: pickled({name: torch.nn.Parameter(one) for name, one in named.items()})}


def deepseek_r1(path: str, tensors: Tensors) -> dict[str, bytes]:
    return {path: pickled({name: one.bfloat16() for name, one in _linear(tensors).items()})}


def gpt2_attention(path: str, tensors: Tensors) -> dict[str, bytes]:
    config = _json(act_size=D_IN, dict_size=D_SAE, act_name="blocks.0.attn.hook_z")
    ordered = collections.OrderedDict(_same_names(tensors))
    return {path: pickled(ordered), f"{path.split('.pt')[0]}_cfg.json": config}


def qwen_transcoder(path: str, tensors: Tensors) -> dict[str, bytes]:
    named = _same_names(tensors)
    named["W_enc"] = named["W_enc"].T.contiguous()
    wandb = yaml.safe_dump(
        {"d_model": {"value": D_IN}, "d_feature": {"value": D_SAE}, "batch_size": {"value": 9}}
    )
    config = yaml.safe_dump({"model_name": "Qwen/Qwen3-4B"})
    return {
        path: save(named), "wandb-config.yaml": wandb.encode(), "config.yaml": config.encode()
    }  # fmt: skip


def cross_layer(path: str, tensors: Tensors) -> dict[str, bytes]:
    encoder = {
        f"W_enc_{path}": tensors["w_enc"].T.contiguous(), f"b_enc_{path}": tensors["b_enc"],
        f"b_dec_{path}": tensors["b_dec"],
    }  # fmt: skip
    parts = torch.stack([tensors["w_dec"], 2 * tensors["w_dec"]], dim=1)
    config = yaml.safe_dump(
        {
            "model_name": "google/gemma-2-2b",
            "feature_input_hook": "hook_resid_mid",
            "feature_output_hook": "hook_mlp_out",
        }
    )
    return {
        f"W_enc_{path}.safetensors": save(encoder),
        f"W_dec_{path}.safetensors": save({f"W_dec_{path}": parts}),
        "config.yaml": config.encode(),
    }


def gemma_scope(folder: str, tensors: Tensors) -> dict[str, bytes]:
    stream = io.BytesIO()
    names = {"w_enc": "W_enc", "w_dec": "W_dec"}
    np.savez(stream, **{names.get(name, name): one.numpy() for name, one in tensors.items()})
    return {f"{folder}/params.npz": stream.getvalue()}


def gemma_scope_2(folder: str, tensors: Tensors) -> dict[str, bytes]:
    part, layer = folder.split("/")[0], folder.split("layer_")[1].split("_")[0]
    model = f"model.layers.{layer}"
    config = {"architecture": "jump_relu", "model_name": "google/gemma-3-4b-it"}
    weights = dict(tensors)
    if part == "transcoder":
        config["hf_hook_point_in"] = f"{model}.pre_feedforward_layernorm.output"
        config["hf_hook_point_out"] = f"{model}.post_feedforward_layernorm.output"
        config["affine_connection"] = folder.endswith("_affine")
    else:
        config["hf_hook_point_in"] = f"{model}.output"
    if folder.endswith("_affine"):
        weights["affine_skip_connection"] = normal(D_IN, D_IN, seed=7)
    return _in(folder, {"config.json": _json(**config), "params.safetensors": save(weights)})


def native(folder: str, tensors: Tensors) -> dict[str, bytes]:
    config = _json(
        d_in=D_IN, d_sae=D_SAE, dtype="float32", model_name="gpt2-small",
        hook_point="blocks.8.hook_resid_pre", hook_point_layer=8, lr=4e-4, l1_coefficient=8e-5,
    )  # fmt: skip
    return _in(folder, {"cfg.json": config, "sae_weights.safetensors": save(_same_names(tensors))})


def temporal(folder: str, tensors: Tensors) -> dict[str, bytes]:
    d_sae, d_in = tensors["w_dec"].shape
    config = {
        "llm": {"dimin": d_in},
        "sae": {
            "exp_factor": d_sae / d_in, "n_heads": 2, "n_attn_layers": 1,
            "bottleneck_factor": d_sae // 8,
            "sae_diff_type": "topk", "kval_topk": K, "tied_weights": True, "scaling_factor": 4.0,
        },
        "data": {"dtype": "float32"},
    }  # fmt: skip
    weights = {"D": tensors["w_dec"], "b": tensors["b_dec"]}
    widths = {"k_ctx": 8, "q_target": 8, "v_ctx": d_sae, "c_proj": d_sae}
    for seed, (name, width) in enumerate(widths.items(), 20):
        weights[f"attn_layers.0.{name}.weight"] = 0.3 * normal(width, d_sae, seed=seed)
        weights[f"attn_layers.0.{name}.bias"] = 0.3 * normal(width, seed=seed)
    files = {"conf.yaml": yaml.safe_dump(config).encode(), "latest_ckpt.safetensors": save(weights)}
    return _in(folder, files)


_BENCH = "sae_bench_gemma-2-2b_{}_width-2pow12_date-1109"
_LEARNED = "blocks.12.hook_resid_post__trainer_0"

REPOSITORIES = {
    "sae_lens": Repository(
        "gpt2-small-res-jb-feature-splitting", "blocks.8.hook_resid_pre_768", native
    ),
    "gemma_2": Repository(
        "gemma-scope-2b-pt-res-canonical", "layer_3/width_16k/canonical", gemma_scope
    ),
    "gemma_2_transcoder": Repository(
        "gemma-scope-2b-pt-transcoders", "layer_0/width_16k/average_l0_76", gemma_scope
    ),
    "gemma_3": Repository("gemma-scope-2-4b-it-res", "layer_17_width_16k_l0_big", gemma_scope_2),
    "gemma_3-transcoder": Repository(
        "gemma-scope-2-4b-it-transcoders", "transcoder/layer_17_width_16k_l0_big", gemma_scope_2
    ),
    "gemma_3-skip_transcoder": Repository(
        "gemma-scope-2-4b-it-transcoders",
        "transcoder/layer_17_width_16k_l0_big_affine",
        gemma_scope_2,
    ),
    "dictionary_learning_1": Repository(
        _BENCH.format("vanilla"), _LEARNED, dictionary_learning("AutoEncoder", _auto_encoder)
    ),
    "dictionary_learning_1-topk": Repository(
        _BENCH.format("topk"), _LEARNED, dictionary_learning("AutoEncoderTopK", top_k)
    ),
    "dictionary_learning_1-batchtopk": Repository(
        _BENCH.format("topk"), _LEARNED, dictionary_learning("BatchTopKSAE", _batch_top_k)
    ),
    "dictionary_learning_1-matryoshka": Repository(
        "saebench_gemma-2-2b_width-2pow12_date-0108",
        _LEARNED,
        dictionary_learning("MatryoshkaBatchTopKSAE", _matryoshka),
    ),
    "dictionary_learning_1-jumprelu": Repository(
        _BENCH.format("vanilla"), _LEARNED, dictionary_learning("JumpReluAutoEncoder", _jump)
    ),
    "qwen_scope": Repository("qwen-scope-3-1.7b-base-w32k-l50", "layer0", qwen_scope, d_sae=32_768),
    "goodfire": Repository("goodfire-llama-3.1-8b-instruct", "layer_19", goodfire),
    "deepseek_r1": Repository(
        "deepseek-r1-distill-llama-8b-qresearch", "blocks.19.hook_resid_post", deepseek_r1
    ),
    "connor_rob_hook_z": Repository("gpt2-small-hook-z-kk", "blocks.0.hook_z", gpt2_attention),
    "mwhanna_transcoder": Repository("mwhanna-qwen3-4b-transcoders", "layer_0", qwen_transcoder),
    "mntss_clt_layer_transcoder": Repository(
        "mntss-gemma-2-2b-2.5m-clt-as-per-layer", "layer_0", cross_layer
    ),
    "llama_scope": Repository("llama_scope_lxr_8x", "l0r_8x", llama_scope),
    "llama_scope_r1_distill": Repository(
        "llama_scope_r1_distill", "l0r_800m_slimpajama", llama_scope_r1
    ),
    "temporal": Repository("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post", temporal),
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
    if "W_enc" in state:  # that of a temporal one is its decoder's transpose
        config |= {"d_in": state["W_enc"].shape[0], "d_sae": state["W_enc"].shape[1]}
    if "d_out" in config:
        config["d_out"] = state["W_dec"].shape[1]
    config = handle_config_defaulting(config)
    made = SAE.from_dict(config)
    made.process_state_dict_for_loading(state)
    made.load_state_dict(state)
    if config["normalize_activations"] == "expected_average_only_in":
        made.fold_activation_norm_scaling_factor(repository.norm_scaling_factor)
    return made.float()


def as_saelens_encodes(theirs, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return SAELens' activations of the rows of one text, and what it makes of them."""
    with torch.no_grad():
        if theirs.cfg.architecture() == "temporal":  # its decode leaves out what it predicted
            return theirs.encode(x[None])[0], theirs(x[None])[0]
        by_head = theirs.cfg.reshape_activations == "hook_z"
        found = theirs.encode(x.reshape(len(x), 2, -1) if by_head else x)
        return found, theirs.decode(found).reshape(len(x), D_IN)
