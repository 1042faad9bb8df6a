"""Names of artifacts' files that more than one room uses."""

PROMPTS = "prompts.parquet"
"""In a capture its prompts; in a decomposition these with their split and group."""
