"""JSON documents of artifacts: what stands in them, for the stages that write and read them.

One file a document. They are written with sorted keys, and what is not known is null.
"""
