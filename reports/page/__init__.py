"""The report: one HTML file that needs nothing else.

Equal views give equal bytes, for no clock is read.

A section is a function from a view to plain values, the templates write them, and every text is
escaped. Only ``writing`` touches the disk.
"""
