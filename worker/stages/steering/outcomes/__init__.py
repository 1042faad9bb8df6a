"""Outcomes: the numbers that generated texts are compared by.

One module each, under the name that it has in ``loopscope.specs.outcomes``; ``measures`` lists
them. What the unsteered model makes of a text (``rereading``) belongs to every run and comes first:
a measure may use it.
"""
