"""``python -m tests.mutation``: placeholder."""
