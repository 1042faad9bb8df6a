"""The verdict: what contrasts between arms allow to be said, of one run or of several."""
