"""Resolution of model and dictionary references: their files, hashes, headers and configs.

Both planes read here, so that they cannot differ: the controller finds out what a spec names, and
a worker reads the same files by the same rules. Small files, headers and the hub's metadata are
read; weights are only hashed. Nothing is decided here, nothing stored but hashes of files, and
torch and the libraries built on it are never imported.
"""
