"""Endpoint of a controller's process: whether it lives and can work, and what it counts."""
