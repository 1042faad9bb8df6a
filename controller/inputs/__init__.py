"""What a model or dictionary reference in a spec really is, found from headers and hashes alone.

Torch and the libraries built on it are never imported here.
"""
