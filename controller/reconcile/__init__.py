"""Reconciliation, one key after the other: read a snapshot, plan by its kind, commit it whole.

Here are the work queue, what is read for a plan, the one commit, which objects are to be looked at
after a change, and the checks of artifacts. A status is written here and nowhere else. Nothing
starts a job, reads a spec file or waits; what is kept in memory may vanish at any time.
"""
