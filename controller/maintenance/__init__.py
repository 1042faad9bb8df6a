"""Work on a whole state folder beside the loop: examine, repair, rebuild, collect, rerun.

The loop knows nothing of it. Repair and rebuild take the leader's lock first; what collects or
runs again sets artifacts aside, for the loop to find missing. Nothing is planned or started here.
"""
