"""Applying: what should exist, by file or by hand, and what that would cost.

A request is read here and answered by ``controller.plan`` and ``controller.apply``, which the
watched folder and the API use as well: no rule about objects may stand in a command.
"""
