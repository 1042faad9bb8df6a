"""What an apply would set in motion, and why things are as they are.

The reconcilers are asked about a store that is only imagined; estimates come from earlier runs.
Needs no running controller. Nothing is written here but by ``requests``, which hands what it
decided to ``apply``, and the mark of ``cached`` that all is as it should be.
"""
