"""Specs of what should exist: the five kinds, their loading from YAML, canonical form, digests."""
