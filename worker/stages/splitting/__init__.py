"""Stage *splitting*: the graph from the coarse latents of a concept to the fine ones."""
