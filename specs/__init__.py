"""Specs of what should exist: the seven kinds, their loading from YAML, canonical form, digests."""
