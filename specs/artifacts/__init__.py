"""Files of every artifact: names, columns with their types, tensors, and the keys of documents.

One module a stage; ``stages`` has them all. Those who write, read, export and document artifacts
take names from here, and a table is written only with the columns that stand here. A declaration
reads and computes nothing. Columns may be added, never removed or renamed: users' notebooks and
finished artifacts have them.
"""
