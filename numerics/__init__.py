"""Tensors in, tensors out: no disk, no clock, no log, no global random state, no device choice."""
