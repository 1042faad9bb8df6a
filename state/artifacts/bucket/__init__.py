"""Artifacts in a bucket of an object store that speaks S3.

Each attempt at an artifact uploads under a name of its own (``keys``), so that nothing that is
removed can be what another attempt has just written. What makes one of them the artifact is a small
object, created only if there is none. Names are moved, bytes never are. What comes down is hashed
and lies in ``copies``; what the network refuses is ``Unreachable`` and says nothing about an
artifact.
"""
