"""SAELens' ``normalize_activations``: what it would mean, and why it is refused."""

from __future__ import annotations

_BY_A_FACTOR = ("expected_average_only_in", "constant_scalar_rescale")
_BY_EACH_VECTOR = {
    "constant_norm_rescale": "its own length",
    "layer_norm": "its own mean and spread",
}


def advice_on(normalisation: object) -> str:
    """Return why a normalisation of activations is not applied, and what can be done."""
    if normalisation in _BY_A_FACTOR:
        return (
            "its factor is not stored with the weights; fold it into them "
            "(SAE.fold_activation_norm_scaling_factor) and save again"
        )
    if isinstance(normalisation, str) and normalisation in _BY_EACH_VECTOR:
        return (
            f"it rescales each vector by {_BY_EACH_VECTOR[normalisation]}, which cannot be folded "
            "into weights; choose a dictionary that was trained with normalize_activations: none"
        )
    if normalisation == "covariance_whitening":
        return "fold its matrices into the weights with SAELens and save again"
    return "choose a dictionary that was trained with normalize_activations: none"
