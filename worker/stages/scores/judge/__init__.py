"""A language model as judge: what is asked, how it is reached, what its answers say."""
