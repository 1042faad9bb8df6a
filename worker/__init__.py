"""The data plane: one process per device that runs one job at a time with warm models."""
