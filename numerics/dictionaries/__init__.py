"""Sparse dictionaries: encoding in blocks, decoding, and what lies near a tie.

What an architecture computes stands in ``loopscope.numerics.architectures``.
"""
