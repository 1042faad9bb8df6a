"""Files of a geometry: what two decoders have to do with each other, whatever the prompts."""

from __future__ import annotations

from loopscope.specs.artifact_files import Tensor, Tensors

NEIGHBOURS = Tensors(
    name="neighbours.safetensors",
    about="for every coarse latent the fine latents whose decoder rows point nearly the same way, "
    "as a sparse matrix [coarse, fine] in CSR",
    tensors=(
        Tensor("indptr", "int64", "[coarse + 1]"),
        Tensor("fine", "int32", "[pairs]"),
        Tensor("cosine", "float32", "[pairs]", "falling within each coarse latent"),
        Tensor(
            "floor",
            "float32",
            "[coarse]",
            "all fine latents with at least this cosine are listed: 0.2, or more where more than "
            "4,096 reach that",
        ),
        Tensor(
            "histogram",
            "int32",
            "[coarse, 100]",
            "all cosines in bins of width 0.02 over [−1, 1]",
        ),
    ),
)
DECODERS = Tensors(
    name="decoders.safetensors",
    about="each decoder by itself: what latents are matched by, and how the fine rows spread",
    tensors=(
        Tensor("coarse_norm", "float32", "[coarse]"),
        Tensor("fine_norm", "float32", "[fine]"),
        Tensor("crowding", "float64", "[coarse]", "mean cosine to the ten nearest coarse rows"),
        Tensor("law_mean", "float64", "[d_model]", "of the normal law of the fine rows' control"),
        Tensor("law_axes", "float64", "[d_model, rank]", "orthonormal"),
        Tensor("law_variances", "float64", "[rank]", "falling"),
    ),
)

FILES = (NEIGHBOURS, DECODERS)
