"""Two runs of one question: how their numbers differ, and what was done to one of them."""
