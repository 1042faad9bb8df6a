"""Artifact folders and what the database knows of them: written once, verified before use.

A manifest is written last, a damaged artifact is set aside and never removed, and nothing is
collected that something needs. The one place that looks at both halves of the state.
"""
