"""Payloads and metrics of the stages: what a worker is given, and what it returns.

One file a stage. Reconcilers build a payload, it waits in the job's row as JSON, and the stage of
its name reads it; metrics come back in the manifest and stand in an object's status. All of it is
plain JSON, so these types move no byte: they are what mypy checks on both sides.
"""
