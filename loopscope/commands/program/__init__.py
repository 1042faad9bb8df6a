"""The program itself: which version it is, what its machine can do, how a shell completes it."""
