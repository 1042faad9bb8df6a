"""Objects: what exists, how far it is and why. These commands look, and change nothing.

They start quickly: tables, controller and YAML are imported by the functions that need them.
"""
