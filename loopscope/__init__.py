"""Loopscope: sparse-autoencoder experiments kept true to their spec."""
