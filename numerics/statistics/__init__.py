"""Tests, intervals and draws, of numbers alone: no latent, no model, no file."""
