"""Sensitivity of a verdict: its word, difference and interval under other choices than declared.

Computed when somebody looks, from what a steering stored; no artifact depends on it.
"""
