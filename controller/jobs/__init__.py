"""Jobs on their way to a worker and back: which starts next, leases, limits, the processes.

The next job is chosen by one pure function of a snapshot, which a claim and ``queue`` share; only a
claim starts a job. Leases are renewed and reclaimed here. What a job computes is never looked at,
and no plan is made: the present payload of a job comes from the reconcilers.
"""
