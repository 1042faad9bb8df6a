"""One key after the other: read a snapshot, ask its kind for a plan, commit it whole.

Here are the work queue, what is read for a plan, the one commit, who is to be looked at after a
change, and the looks at artifacts. A status is written here and nowhere else. Nothing starts a job,
reads a spec file or waits; what is kept in memory may vanish at any time.
"""
