"""The verdict: contrasts between arms and what follows from them, of one run or of several."""
