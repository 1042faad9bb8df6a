"""Steering: directions, budgets, generation, and what is measured of the texts."""
