"""The gate: children of a coarse latent, what chance would give, GO or NO-GO."""
