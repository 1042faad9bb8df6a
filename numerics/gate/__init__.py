"""The gate: children of a coarse latent, what chance would give, GO or NO-GO."""

NULL_ANCHORS_MIN = 100
"""With fewer matched anchors a percentile of 95 rests on fewer than five of them."""
