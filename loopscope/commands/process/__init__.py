"""The processes that stay: those that make it true, and the one that other programs talk to.

Each reads its options, builds settings, and hands over to ``controller`` or ``server``; nothing is
decided here.
"""
