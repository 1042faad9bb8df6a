"""Verification: what a bundle says, computed again from what it holds.

Nothing but the bundle is read: no state folder, no model, no network, no torch. The formulas are
those that made the numbers, given the tables beside them; what only the model can tell is named as
left out, never as verified. Numbers agree within rounding (``findings``). A module a part of the
bundle; each takes what was opened and adds to what was found.
"""
