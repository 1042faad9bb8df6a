"""Latents of one resolution that become latents of the next: edges, fates, what chance makes."""
