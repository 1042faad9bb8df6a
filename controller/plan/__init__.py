"""Plans of an apply, and explanations of how things stand.

The reconcilers plan over an overlay on the store; estimates come from earlier runs. Needs no
running controller. Nothing is written here but by ``requests``, which hands its decision to
``apply``, and by ``cached``, which marks that everything is reconciled.
"""
