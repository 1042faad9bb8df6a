"""From a pending job to a worker and back: who starts next, leases, limits, the processes.

Which job is next is one pure function of a snapshot, asked by a claim and by what ``queue`` shows;
only a claim starts one. Leases are renewed and taken back here. What a job computes is never looked
at, and no plan is made: what a payload should say now is asked of the reconcilers.
"""
