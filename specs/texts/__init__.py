"""Sources of texts: the ways in which a spec gives prompts, words and the like."""
