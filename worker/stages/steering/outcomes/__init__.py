"""Outcomes: the numbers that generated texts are compared by."""
