"""Latents over prompts: splits, statistics, pairs of a coarse and a fine one.

Selects and tests; whether that is enough is the gate's to say.
"""
