"""Drift: how far an anchoring reaches over neutral text, and how far samples wander from it."""
