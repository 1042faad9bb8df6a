"""Read-only views of status and artifacts: rows, documents, the HTML report, the bundle.

Nothing here writes to a state folder, starts a job or loads a model. What is missing is shown as
missing, with the reason, never as zero.
"""
