"""Notifications: conditions that changed, told to a webhook. Off unless the limits file names one.

The loop only puts notices into a bounded box; a thread of its own speaks to the network.
"""
